//! The learning rates of an encoder's parameters, and which parameters are frozen.

use antiphon_core::spec::TransferSpec;
use candle_core::Var;

use crate::encoder::Frozen;

/// The prefix of the parameters of the last layer, from the encoder's own width to the head's.
pub(super) const ADAPTER: &str = "adapter.";

/// A pattern in `freeze` matches no parameter.
#[derive(Debug, thiserror::Error)]
#[error("the pattern `{pattern}` in `freeze` matches no parameter of the encoder; {advice}")]
pub struct NoSuchParameter {
    /// The pattern.
    pub pattern: String,
    /// Names that the pattern may have meant, as text.
    pub advice: String,
}

/// The factor of the learning rate of each parameter. None for parameters that are not trained.
#[derive(Debug, Clone, PartialEq)]
pub struct Rates(Vec<Option<f64>>);

impl Rates {
    /// Every parameter is trained at the optimizer's rate.
    #[must_use]
    pub fn same(parameters: usize) -> Self {
        Self(vec![Some(1.0); parameters])
    }

    /// The rates of an encoder with these parameters.
    ///
    /// # Errors
    /// If a pattern matches no parameter. The error lists similar names.
    pub fn new(transfer: &TransferSpec, parameters: &[(String, Var)]) -> Result<Self, NoSuchParameter> {
        for pattern in &transfer.freeze {
            if !parameters.iter().any(|(name, _)| matches(pattern, name)) {
                let names: Vec<&str> = parameters.iter().map(|(name, _)| name.as_str()).collect();
                return Err(NoSuchParameter { pattern: pattern.clone(), advice: advice(pattern, &names) });
            }
        }
        let rate = |name: &str| {
            let frozen = transfer.freeze.iter().any(|pattern| matches(pattern, name));
            (!frozen).then(|| if name.starts_with(ADAPTER) { transfer.adapter_lr } else { 1.0 })
        };
        Ok(Self(parameters.iter().map(|(name, _)| rate(name)).collect()))
    }

    /// The parameters that are not trained. `parameters` must be those of [`Self::new`].
    #[must_use]
    pub fn frozen(&self, parameters: &[(String, Var)]) -> Frozen {
        Frozen::new(
            parameters.iter().zip(&self.0).filter(|(_, rate)| rate.is_none()).map(|((_, variable), _)| variable),
        )
    }

    /// Positions of the parameters that are trained, each with its factor.
    pub fn trained(&self) -> impl Iterator<Item = (usize, f64)> {
        self.0.iter().enumerate().filter_map(|(position, rate)| Some((position, (*rate)?)))
    }
}

/// Whether a name matches a pattern in which `*` matches any characters and `?` one character.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // The position of the last `*`, and how much of the name it matches so far.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        if pattern.get(p) == Some(&'*') {
            star = Some((p, n));
            p += 1;
        } else if pattern.get(p).is_some_and(|c| *c == '?' || *c == name[n]) {
            (p, n) = (p + 1, n + 1);
        } else if let Some((at, taken)) = star {
            star = Some((at, taken + 1));
            (p, n) = (at + 1, taken + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// The names that share the longest prefix with the pattern.
fn advice(pattern: &str, names: &[&str]) -> String {
    const SHOWN: usize = 5;
    let shared = |name: &str| name.chars().zip(pattern.chars()).take_while(|(a, b)| a == b).count();
    let most = names.iter().map(|name| shared(name)).max().unwrap_or(0);
    let near: Vec<String> =
        names.iter().filter(|name| shared(name) == most).take(SHOWN).map(|name| format!("`{name}`")).collect();
    let what = if most == 0 { "its parameters are" } else { "similar names are" };
    let more = if near.len() == SHOWN { " and so on" } else { "" };
    format!("{what} {}{more}", near.join(", "))
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    fn parameters() -> Vec<(String, Var)> {
        let named = |name: &str| (name.to_owned(), Var::zeros(1, DType::F32, &Device::Cpu).expect("a variable"));
        ["conv1.weight", "layer1.0.weight", "layer1.1.weight", "layer2.0.weight", "adapter.weight"].map(named).into()
    }

    fn rates(freeze: &[&str], adapter_lr: f64) -> Result<Vec<Option<f64>>, String> {
        let freeze = freeze.iter().map(|pattern| (*pattern).to_owned()).collect();
        let transfer = TransferSpec { freeze, adapter_lr, ..TransferSpec::default() };
        Rates::new(&transfer, &parameters()).map(|rates| rates.0).map_err(|error| error.to_string())
    }

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, fits) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a?c", "abc", true),
            ("a?", "a", false),
            ("*.bias", "layer1.0.bias", true),
            ("layer?.*.weight", "layer1.0.conv1.weight", true),
            ("*a*b*", "xxaxbx", true),
            ("*a*b", "xxaxbx", false),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
        assert!(!matches(&"*a".repeat(200), &"a".repeat(199)), "in no time");
    }

    #[test]
    fn what_is_frozen_has_no_rate_and_the_adapter_its_own() {
        let one = Some(1.0);
        assert_eq!(rates(&[], 10.0), Ok(vec![one, one, one, one, Some(10.0)]));
        assert_eq!(rates(&["conv1.*", "layer1.*"], 1.0), Ok(vec![None, None, None, one, one]));
        assert_eq!(rates(&["*"], 10.0), Ok(vec![None; 5]));
    }

    #[test]
    fn a_pattern_that_matches_nothing_says_what_there_is() {
        assert_eq!(
            rates(&["layer3.*"], 1.0),
            Err("the pattern `layer3.*` in `freeze` matches no parameter of the encoder; similar names are \
                 `layer1.0.weight`, `layer1.1.weight`, `layer2.0.weight`"
                .to_owned())
        );
        assert_eq!(
            rates(&["stem"], 1.0),
            Err("the pattern `stem` in `freeze` matches no parameter of the encoder; its parameters are \
                 `conv1.weight`, `layer1.0.weight`, `layer1.1.weight`, `layer2.0.weight`, `adapter.weight` and so on"
                .to_owned())
        );
    }
}
