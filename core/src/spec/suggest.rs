//! The known word that is nearest to an unknown one.

/// The nearest of `known`, if it is near enough to be a likely typo. Of several nearest words, the first.
pub(super) fn nearest<'a>(given: &str, known: &[&'a str]) -> Option<&'a str> {
    if given.len() > 64 {
        return None;
    }
    let most = given.chars().count().max(3) / 3;
    let (distance, word) = known.iter().map(|word| (distance(given, word), *word)).min_by_key(|(d, _)| *d)?;
    (distance <= most).then_some(word)
}

/// The smallest number of insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = least;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits() {
        for (a, b, d) in
            [("", "", 0), ("abc", "", 3), ("abc", "abc", 0), ("abc", "acb", 1), ("batch", "bacth", 1), ("a", "b", 1)]
        {
            assert_eq!((distance(a, b), distance(b, a)), (d, d), "{a} {b}");
        }
    }

    #[test]
    fn only_near_words_are_suggested() {
        let keys = ["epochs", "turns", "order", "batch"];
        assert_eq!(nearest("epoch", &keys), Some("epochs"));
        assert_eq!(nearest("batchsize", &keys), None);
        assert_eq!(nearest("zzz", &keys), None);
        assert_eq!(nearest(&"x".repeat(10_000), &keys), None);
    }
}
