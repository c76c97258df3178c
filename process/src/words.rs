//! Errors in words.

use std::error::Error;

/// An error and its causes in one line, up to where the innermost cause has been said: many errors tell what they came of themselves.
#[must_use]
pub fn in_words(error: &(dyn Error + 'static)) -> String {
    let innermost = innermost(error);
    let mut said = error.to_string();
    for cause in std::iter::successors(error.source(), |&error| error.source()) {
        if said.contains(&innermost) {
            break;
        }
        said = format!("{said}: {cause}");
    }
    said
}

/// What an error came of in the end: of a broken connection the system's own words, and not those of the layers above.
#[must_use]
pub fn innermost(error: &(dyn Error + 'static)) -> String {
    std::iter::successors(Some(error), |&error| error.source()).last().map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    #[derive(Debug)]
    struct Told(&'static str, Option<Box<Told>>);

    impl fmt::Display for Told {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Told {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|cause| cause as &(dyn Error + 'static))
        }
    }

    fn words(chain: &[&'static str]) -> String {
        let told = chain.iter().rev().fold(None, |cause, text| Some(Box::new(Told(text, cause))));
        in_words(&*told.expect("one error at least"))
    }

    #[test]
    fn every_cause_is_said_and_none_twice() {
        assert_eq!(words(&["alone"]), "alone");
        assert_eq!(words(&["cannot train", "no batch", "disk full"]), "cannot train: no batch: disk full");
        let itself = ["step 3", "cannot read `x`: refused; look there", "client: refused", "refused"];
        assert_eq!(words(&itself), "step 3: cannot read `x`: refused; look there");
    }
}
