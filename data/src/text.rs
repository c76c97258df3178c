//! Text to token ids: UTF-8 bytes, or a Hugging Face tokenizer.

use bytes::Bytes;
use tokenizers::Tokenizer;

use super::error::SampleError;

/// Turns text into 1 to `max_tokens` token ids.
#[derive(Debug, Clone)]
pub(super) enum TextTokenizer {
    /// Each byte is its own id. 256 is padding.
    Byte,
    /// A Hugging Face tokenizer, and the bytes of its `tokenizer.json`, which go into checkpoints.
    File(Box<Tokenizer>, Bytes),
}

impl TextTokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    ///
    /// What is wrong with the file.
    pub(super) fn from_json(file: Bytes) -> Result<Self, String> {
        let mut tokenizer = Tokenizer::from_bytes(&file).map_err(|error| format!("not a valid tokenizer: {error}"))?;
        tokenizer.with_truncation(None).map_err(|error| error.to_string())?;
        tokenizer.with_padding(None);
        Ok(Self::File(Box::new(tokenizer), file))
    }

    /// The number of ids, padding included: every id is below it.
    pub(super) fn vocabulary(&self) -> usize {
        match self {
            Self::Byte => 257,
            Self::File(tokenizer, _) => highest(tokenizer) + 2,
        }
    }

    /// The padding id: one past the tokenizer's own ids, so that no text contains it.
    pub(super) fn padding(&self) -> u32 {
        self.vocabulary() as u32 - 1
    }

    /// The first `max_tokens` ids of a text. A text without tokens becomes one padding token.
    pub(super) fn tokenize(&self, text: &str, max_tokens: usize) -> Result<Vec<u32>, SampleError> {
        let mut ids: Vec<u32> = match self {
            Self::Byte => text.bytes().take(max_tokens).map(u32::from).collect(),
            Self::File(tokenizer, _) => {
                let encoding = tokenizer.encode_fast(text, true).map_err(|error| {
                    SampleError::new(
                        format!("the tokenizer cannot split it: {error}"),
                        "correct the text or change the tokenizer",
                    )
                })?;
                encoding.get_ids().iter().take(max_tokens).copied().collect()
            }
        };
        if ids.is_empty() {
            ids.push(self.padding());
        }
        Ok(ids)
    }
}

/// The largest id of a tokenizer: ids may have gaps, so their number is not enough.
fn highest(tokenizer: &Tokenizer) -> usize {
    tokenizer.get_vocab(true).values().max().map_or(0, |id| *id as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_their_own_tokens_and_empty_text_is_one_filler() {
        assert_eq!(TextTokenizer::Byte.tokenize("aé", 9).expect("text"), [97, 195, 169]);
        assert_eq!(TextTokenizer::Byte.tokenize("abc", 2).expect("text"), [97, 98]);
        assert_eq!(TextTokenizer::Byte.tokenize("", 2).expect("text"), [256]);
    }

    #[test]
    fn the_padding_of_a_tokenizer_file_is_past_its_vocabulary() {
        let json = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,
            "pre_tokenizer":{"type":"Whitespace"},"post_processor":null,"decoder":null,
            "model":{"type":"WordLevel","vocab":{"[UNK]":0,"one":1,"two":5},"unk_token":"[UNK]"}}"#;
        let tokenizer = TextTokenizer::from_json(Bytes::from_static(json.as_bytes())).expect("a good tokenizer");
        assert_eq!(tokenizer.tokenize("two one three", 9).expect("text"), [5, 1, 0]);
        assert_eq!((tokenizer.vocabulary(), tokenizer.padding()), (7, 6));
        assert!(TextTokenizer::from_json(Bytes::from_static(b"{}")).is_err());
    }
}
