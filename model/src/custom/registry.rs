//! The encoders that a program registers besides the built-in ones.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use antiphon_core::ids::EncoderName;
use antiphon_core::spec::EncoderSpec;
use candle_core::ModuleT;
use candle_nn::VarBuilder;

use super::blueprint::Blueprint;
use super::error::BuildError;

/// A network with a forward pass.
pub(super) type Network = Box<dyn ModuleT + Send + Sync>;

pub(super) type Build = dyn Fn(&Blueprint<'_>, VarBuilder<'_>) -> Result<Network, BuildError> + Send + Sync;

/// Custom encoders by name. Clones share them.
#[derive(Clone, Default)]
pub struct Encoders(BTreeMap<EncoderName, Arc<Build>>);

impl Encoders {
    /// No custom encoders.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an encoder: `encoder: {kind: NAME}` in a job selects the network that `build` creates.
    ///
    /// `build` gets its parameters from the `VarBuilder`, which names them by path, seeds them and saves them. It
    /// returns any type with a forward pass from a batch to features (B, any width). See [`Blueprint`] for the batch.
    ///
    /// # Panics
    /// If `name` is not a valid name (lower-case letters, digits and hyphens), is the name of a built-in encoder, or is
    /// registered already. These are bugs of the program, which show when it starts.
    #[must_use]
    pub fn register<F, M>(mut self, name: &str, build: F) -> Self
    where
        F: Fn(&Blueprint<'_>, VarBuilder<'_>) -> Result<M, BuildError> + Send + Sync + 'static,
        M: ModuleT + Send + Sync + 'static,
    {
        assert!(!EncoderSpec::BUILT_IN.contains(&name), "encoder `{name}` is built in; register it by another name");
        let name = EncoderName::try_from(name).unwrap_or_else(|error| panic!("{error}"));
        let boxed = move |blueprint: &Blueprint<'_>, variables: VarBuilder<'_>| {
            build(blueprint, variables).map(|network| Box::new(network) as Network)
        };
        let before = self.0.insert(name.clone(), Arc::new(boxed));
        assert!(before.is_none(), "encoder `{name}` is registered twice");
        self
    }

    /// The registered names, in order.
    #[must_use]
    pub fn names(&self) -> Vec<EncoderName> {
        self.0.keys().cloned().collect()
    }

    pub(super) fn get(&self, name: &EncoderName) -> Option<&Build> {
        self.0.get(name).map(AsRef::as_ref)
    }
}

impl fmt::Debug for Encoders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Encoders").field(&self.names()).finish()
    }
}
