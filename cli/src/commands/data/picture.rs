//! Small grey pictures in a terminal.

use antiphon_data::inspect::Picture;

/// Characters from dark to bright.
const RAMP: &[u8] = b" .:-=+*#%@";
/// Number of grey levels in a terminal with 256 colours.
const GREYS: u32 = 24;
const FIRST_GREY: u32 = 232;

/// Draws two rows of pixels per line of text: as half blocks in shades of grey if the terminal has `colours`, otherwise
/// as characters of varying density.
pub(super) fn lines(picture: &Picture, colours: bool) -> Vec<String> {
    let level = |x: usize, y: usize| picture.levels.get(y * picture.width + x).copied().map(u32::from);
    let pair = |x: usize, y: usize| {
        let upper = level(x, y).unwrap_or(0);
        (upper, level(x, y + 1).unwrap_or(if colours { 0 } else { upper }))
    };
    let rows = (0..picture.height).step_by(2);
    let text = |y: usize| (0..picture.width).map(move |x| pair(x, y));
    if colours { rows.map(|y| blocks(text(y))).collect() } else { rows.map(|y| characters(text(y))).collect() }
}

fn blocks(pairs: impl Iterator<Item = (u32, u32)>) -> String {
    let grey = |level: u32| FIRST_GREY + level * (GREYS - 1) / 255;
    let blocks: String =
        pairs.map(|(upper, lower)| format!("\x1b[38;5;{};48;5;{}m▀", grey(upper), grey(lower))).collect();
    blocks + "\x1b[0m"
}

fn characters(pairs: impl Iterator<Item = (u32, u32)>) -> String {
    let steps = RAMP.len() as u32 - 1;
    let character = |(upper, lower): (u32, u32)| char::from(RAMP[(((upper + lower) * steps + 255) / 510) as usize]);
    pairs.map(character).collect::<String>().trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_rows_of_pixels_make_a_line() {
        let picture = Picture { width: 3, height: 3, levels: vec![0, 255, 255, 0, 255, 0, 255, 0, 0] };
        assert_eq!(lines(&picture, false), [" @+", "@"]);
        let coloured = lines(&picture, true);
        assert_eq!(coloured.len(), 2);
        assert!(coloured[0].starts_with("\x1b[38;5;232;48;5;232m▀\x1b[38;5;255;48;5;255m▀"), "{coloured:?}");
    }
}
