//! Just enough of Python's pickle format to find the tensors in PyTorch files. Nothing is imported and nothing is
//! called: the few constructors in a state dict are known by name, and everything else is an opaque value.
//!
//! candle's reader panics on some files and copies referenced values, so a small file can fill the memory.
//!
//! Bounds: time and memory are proportional to the length of the pickle, for any contents. Values are references to
//! nodes, not copies, so a value that is referenced many times exists once.

mod constructors;

use std::collections::BTreeMap;

/// The longest name that is assembled from others, in bytes.
const MOST_NAME: usize = 256;

/// A reference to a value, by its position.
pub(super) type Id = usize;

/// A value.
#[derive(Debug, Clone)]
pub(super) enum Node {
    /// `module.name`, which is not imported.
    Class(String),
    Whole(i64),
    Text(String),
    /// A tuple or list.
    Items(Vec<Id>),
    /// A dictionary, in the order it was written.
    Table(Vec<(Id, Id)>),
    Storage(Storage),
    Tensor(View),
    /// Anything else.
    Opaque,
}

/// A storage: numbers in a file beside the pickle.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Storage {
    /// PyTorch's class, such as `torch.FloatStorage`.
    pub(super) class: String,
    pub(super) key: String,
    /// The number of elements.
    pub(super) length: usize,
}

/// A tensor: a view of some numbers of a storage.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) storage: Storage,
    /// In elements, like the strides.
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

/// The contents of a pickle.
#[derive(Debug)]
pub(super) struct Pickle {
    nodes: Vec<Node>,
    root: Id,
}

impl Pickle {
    /// Reads a whole pickle, or says what is wrong with it.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let mut machine =
            Machine { bytes, at: 0, nodes: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo: BTreeMap::new() };
        while machine.step()? {}
        let root = machine.pop()?;
        Ok(Self { nodes: machine.nodes, root })
    }

    pub(super) fn root(&self) -> &Node {
        &self.nodes[self.root]
    }

    pub(super) fn node(&self, id: Id) -> &Node {
        &self.nodes[id]
    }
}

/// The stack machine that executes a pickle's instructions.
struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    nodes: Vec<Node>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: BTreeMap<u32, Id>,
}

impl Machine<'_> {
    /// Executes one instruction. Returns false at the end.
    fn step(&mut self) -> Result<bool, String> {
        let at = self.at;
        match self.number::<1>()? as u8 {
            b'.' => return Ok(false),
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.since_mark()?),
            b'2' => self.stack.push(self.top()?),
            b'N' | 0x88 | 0x89 => self.push(Node::Opaque),
            b'G' => self.opaque(8)?,
            b'J' => self.whole::<4>()?,
            b'K' | b'M' => self.short(self.bytes[at])?,
            code @ (0x8a | 0x8b) => self.long(code)?,
            b'X' => self.text::<4>()?,
            0x8c => self.text::<1>()?,
            0x8d => self.text::<8>()?,
            b'U' => self.text::<1>()?,
            b'T' => self.text::<4>()?,
            b'C' => self.raw::<1>()?,
            b'B' => self.raw::<4>()?,
            0x8e => self.raw::<8>()?,
            b')' | b']' | 0x8f => self.push(Node::Items(Vec::new())),
            b'}' => self.push(Node::Table(Vec::new())),
            b't' | b'l' | 0x91 => self.items_since_mark()?,
            code @ 0x85..=0x87 => self.tuple(usize::from(code - 0x84))?,
            b'd' => self.table()?,
            b'a' => self.append(1)?,
            b'e' | 0x90 => self.append_marked()?,
            b's' => self.set_item()?,
            b'u' => self.set_items()?,
            b'q' => self.memorise::<1>()?,
            b'r' => self.memorise::<4>()?,
            0x94 => self.remember(self.memo.len() as u32)?,
            b'h' => self.recall::<1>()?,
            b'j' => self.recall::<4>()?,
            b'c' => self.class()?,
            0x93 => self.class_of_texts()?,
            b'Q' => self.storage()?,
            b'R' | 0x81 => self.call()?,
            // The state of an object is ignored. For a dictionary, it is PyTorch's record of versions.
            b'b' => drop(self.pop()?),
            code => return Err(format!("instruction {code:#04x} at byte {at} does not occur in a state dict")),
        }
        Ok(true)
    }

    fn take(&mut self, count: usize) -> Result<&[u8], String> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| "it is truncated".to_owned())?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// N bytes, little-endian.
    fn number<const N: usize>(&mut self) -> Result<u64, String> {
        Ok(self.take(N)?.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn push(&mut self, node: Node) {
        self.stack.push(self.nodes.len());
        self.nodes.push(node);
    }

    fn pop(&mut self) -> Result<Id, String> {
        if self.marks.last().is_some_and(|mark| *mark >= self.stack.len()) {
            return Err("a value is popped from below a mark".to_owned());
        }
        self.stack.pop().ok_or_else(|| "a value is popped from an empty stack".to_owned())
    }

    fn top(&self) -> Result<Id, String> {
        self.stack.last().copied().ok_or_else(|| "a value is read from an empty stack".to_owned())
    }

    fn since_mark(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.marks.pop().ok_or_else(|| "values are popped down to a mark that does not exist".to_owned())?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn opaque(&mut self, bytes: usize) -> Result<(), String> {
        self.take(bytes)?;
        self.push(Node::Opaque);
        Ok(())
    }

    fn whole<const N: usize>(&mut self) -> Result<(), String> {
        let number = self.number::<N>()? as u32;
        self.push(Node::Whole(i64::from(number.cast_signed())));
        Ok(())
    }

    /// An unsigned integer of one or two bytes.
    fn short(&mut self, code: u8) -> Result<(), String> {
        let number = if code == b'K' { self.number::<1>()? } else { self.number::<2>()? };
        self.push(Node::Whole(number.cast_signed()));
        Ok(())
    }

    /// An integer of any length. One that does not fit 64 bits becomes opaque.
    fn long(&mut self, code: u8) -> Result<(), String> {
        let length = if code == 0x8a { self.number::<1>()? } else { self.number::<4>()? };
        let bytes = self.take(length as usize)?;
        let node = match (bytes.len(), bytes.last()) {
            (0, _) | (_, None) => Node::Whole(0),
            (1..=8, Some(last)) => {
                let filler = if *last >= 0x80 { u64::MAX } else { 0 };
                Node::Whole(
                    bytes.iter().rev().fold(filler, |number, byte| number << 8 | u64::from(*byte)).cast_signed(),
                )
            }
            _ => Node::Opaque,
        };
        self.push(node);
        Ok(())
    }

    fn text<const N: usize>(&mut self) -> Result<(), String> {
        let length = usize::try_from(self.number::<N>()?).unwrap_or(usize::MAX);
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.push(Node::Text(text));
        Ok(())
    }

    fn raw<const N: usize>(&mut self) -> Result<(), String> {
        let length = usize::try_from(self.number::<N>()?).unwrap_or(usize::MAX);
        self.opaque(length)
    }

    fn items_since_mark(&mut self) -> Result<(), String> {
        let items = self.since_mark()?;
        self.push(Node::Items(items));
        Ok(())
    }

    fn tuple(&mut self, count: usize) -> Result<(), String> {
        let mut items = (0..count).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
        items.reverse();
        self.push(Node::Items(items));
        Ok(())
    }

    fn table(&mut self) -> Result<(), String> {
        let items = self.since_mark()?;
        self.push(Node::Table(pairs(&items)));
        Ok(())
    }

    fn append(&mut self, count: usize) -> Result<(), String> {
        let items = (0..count).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
        self.extend(&items)
    }

    fn append_marked(&mut self) -> Result<(), String> {
        let items = self.since_mark()?;
        self.extend(&items)
    }

    fn extend(&mut self, items: &[Id]) -> Result<(), String> {
        let list = self.top()?;
        if let Node::Items(list) = &mut self.nodes[list] {
            list.extend(items);
        }
        Ok(())
    }

    fn set_item(&mut self) -> Result<(), String> {
        let (value, key) = (self.pop()?, self.pop()?);
        self.put(&[(key, value)])
    }

    fn set_items(&mut self) -> Result<(), String> {
        let items = self.since_mark()?;
        self.put(&pairs(&items))
    }

    fn put(&mut self, entries: &[(Id, Id)]) -> Result<(), String> {
        let table = self.top()?;
        if let Node::Table(table) = &mut self.nodes[table] {
            table.extend(entries);
        }
        Ok(())
    }

    fn memorise<const N: usize>(&mut self) -> Result<(), String> {
        let place = self.number::<N>()? as u32;
        self.remember(place)
    }

    fn remember(&mut self, place: u32) -> Result<(), String> {
        self.memo.insert(place, self.top()?);
        Ok(())
    }

    fn recall<const N: usize>(&mut self) -> Result<(), String> {
        let place = self.number::<N>()? as u32;
        let id = self.memo.get(&place).ok_or_else(|| format!("it refers to value {place}, which does not exist"))?;
        self.stack.push(*id);
        Ok(())
    }

    fn class(&mut self) -> Result<(), String> {
        let (module, name) = (self.line()?, self.line()?);
        self.push(Node::Class(format!("{module}.{name}")));
        Ok(())
    }

    fn line(&mut self) -> Result<String, String> {
        let length = self.bytes[self.at..].iter().position(|byte| *byte == b'\n');
        let length = length.ok_or_else(|| "it is truncated".to_owned())?;
        let line = self.take(length + 1)?;
        Ok(String::from_utf8_lossy(&line[..length]).into_owned())
    }

    fn class_of_texts(&mut self) -> Result<(), String> {
        let (name, module) = (self.pop()?, self.pop()?);
        let node = match (&self.nodes[module], &self.nodes[name]) {
            (Node::Text(module), Node::Text(name)) if module.len() + name.len() < MOST_NAME => {
                Node::Class(format!("{module}.{name}"))
            }
            _ => Node::Opaque,
        };
        self.push(node);
        Ok(())
    }
}

fn pairs(items: &[Id]) -> Vec<(Id, Id)> {
    items.as_chunks::<2>().0.iter().map(|[key, value]| (*key, *value)).collect()
}
