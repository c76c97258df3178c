//! The constructors in a state dict: storages, tensors, dictionaries. The results of other constructors are opaque.

use super::{Id, MOST_NAME, Machine, Node, Storage, View};

/// The largest number of dimensions of a tensor.
const MOST_DIMENSIONS: usize = 8;

impl Machine<'_> {
    /// `("storage", class, key, device, length)`.
    pub(super) fn storage(&mut self) -> Result<(), String> {
        let id = self.pop()?;
        let node = self.as_storage(id).map_or(Node::Opaque, Node::Storage);
        self.push(node);
        Ok(())
    }

    fn as_storage(&self, id: Id) -> Option<Storage> {
        let Node::Items(items) = &self.nodes[id] else { return None };
        let &[_, class, key, _, length] = items.as_slice() else { return None };
        match (&self.nodes[class], &self.nodes[key], &self.nodes[length]) {
            (Node::Class(class), Node::Text(key), Node::Whole(length)) if class.len() + key.len() < MOST_NAME => {
                Some(Storage { class: class.clone(), key: key.clone(), length: usize::try_from(*length).ok()? })
            }
            _ => None,
        }
    }

    /// Calls a constructor, if it is one of PyTorch's for tensors and dictionaries.
    pub(super) fn call(&mut self) -> Result<(), String> {
        let (mut arguments, mut class) = (self.pop()?, self.pop()?);
        // A tensor of a user-defined class wraps another constructor. PyTorch wraps once; twice is accepted.
        for _ in 0..2 {
            let (Node::Class(name), Node::Items(items)) = (&self.nodes[class], &self.nodes[arguments]) else { break };
            match (name.as_str(), items.as_slice()) {
                ("torch._tensor._rebuild_from_type_v2", &[inner, _, of, ..]) => (class, arguments) = (inner, of),
                ("torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state", &[tensor, ..]) => {
                    self.stack.push(tensor);
                    return Ok(());
                }
                _ => break,
            }
        }
        let name = if let Node::Class(name) = &self.nodes[class] { name.as_str() } else { "" };
        let node = match name {
            "collections.OrderedDict" | "collections.defaultdict" | "builtins.dict" => Node::Table(Vec::new()),
            "torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2" => {
                self.as_view(arguments).map_or(Node::Opaque, Node::Tensor)
            }
            _ => Node::Opaque,
        };
        self.push(node);
        Ok(())
    }

    /// `(storage, offset, shape, strides, …)`.
    fn as_view(&self, arguments: Id) -> Option<View> {
        let Node::Items(items) = &self.nodes[arguments] else { return None };
        let &[storage, offset, shape, strides, ..] = items.as_slice() else { return None };
        let Node::Storage(storage) = &self.nodes[storage] else { return None };
        let (shape, strides) = (self.counts(shape)?, self.counts(strides)?);
        let view = View { storage: storage.clone(), offset: self.count(offset)?, shape, strides };
        (view.shape.len() == view.strides.len()).then_some(view)
    }

    fn counts(&self, id: Id) -> Option<Vec<usize>> {
        let Node::Items(items) = &self.nodes[id] else { return None };
        if items.len() > MOST_DIMENSIONS {
            return None;
        }
        items.iter().map(|item| self.count(*item)).collect()
    }

    fn count(&self, id: Id) -> Option<usize> {
        let Node::Whole(number) = self.nodes[id] else { return None };
        usize::try_from(number).ok()
    }
}
