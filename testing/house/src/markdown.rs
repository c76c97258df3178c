//! Parses the Markdown that the checks need: headings, links and fenced blocks.

/// A fenced block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The line of the fence, from 1.
    pub line: usize,
    /// The word after the fence, such as `sh,run`; may be empty.
    pub tag: String,
    /// The content, without the indentation of the fence.
    pub text: String,
}

/// A parsed page.
#[derive(Debug, Default)]
pub struct Page {
    /// The anchors of the page.
    pub anchors: Vec<String>,
    /// The targets of links and images, with their lines.
    pub links: Vec<(usize, String)>,
    /// Code between backticks, with its line.
    pub spans: Vec<(usize, String)>,
    /// Fenced blocks.
    pub blocks: Vec<Block>,
    /// Headings, with their lines, without their `#`.
    pub headings: Vec<(usize, String)>,
}

/// Parses a page.
pub fn read(text: &str) -> Page {
    let mut page = Page::default();
    let mut open: Option<(String, usize, Block)> = None;
    for (at, line) in text.lines().enumerate() {
        let trimmed = line.trim_start();
        if let Some((fence, indent, mut block)) = open.take() {
            if trimmed.starts_with(&*fence) && trimmed.trim_matches(['`', '~', ' ']).is_empty() {
                page.blocks.push(block);
            } else {
                let own = line.len() - trimmed.len();
                block.text.push_str(&line[own.min(indent)..]);
                block.text.push('\n');
                open = Some((fence, indent, block));
            }
            continue;
        }
        let fence: String = trimmed.chars().take_while(|char| *char == '`' || *char == '~').collect();
        if fence.len() >= 3 {
            let tag = trimmed[fence.len()..].trim().to_owned();
            open = Some((fence, line.len() - trimmed.len(), Block { line: at + 1, tag, text: String::new() }));
        } else {
            page.prose(at + 1, line);
        }
    }
    page
}

impl Page {
    fn prose(&mut self, at: usize, line: &str) {
        let level = line.chars().take_while(|char| *char == '#').count();
        if (1..=6).contains(&level) && line[level..].starts_with(' ') {
            let title = line[level..].trim();
            let slug = slug(title);
            let same = self.headings.iter().filter(|(_, other)| crate::markdown::slug(other) == slug).count();
            self.anchors.push(if same == 0 { slug } else { format!("{slug}-{same}") });
            self.headings.push((at, title.to_owned()));
        }
        for (index, span) in line.split('`').enumerate() {
            if index % 2 == 1 {
                self.spans.push((at, span.to_owned()));
            }
        }
        let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("``");
        self.links.extend(links(&prose).into_iter().map(|target| (at, target)));
        for id in prose.split("id=\"").skip(1).chain(prose.split("name=\"").skip(1)) {
            self.anchors.extend(id.split('"').next().map(str::to_owned));
        }
    }
}

/// The targets of `[…](target)`, `[…](target "title")`, `[…]: target` and `src="target"`.
fn links(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    let target = |text: &str| text.split_whitespace().next().map(|text| text.trim_matches(['<', '>']).to_owned());
    for rest in line.split("](").skip(1) {
        let mut depth = 1_usize;
        let inside = rest.chars().take_while(|char| {
            match char {
                '(' => depth += 1,
                ')' => depth -= 1,
                _ => {}
            }
            depth > 0
        });
        found.extend(target(&inside.collect::<String>()));
    }
    for attribute in ["src=\"", "href=\"", "srcset=\""] {
        for rest in line.split(attribute).skip(1) {
            found.extend(rest.split('"').next().map(str::to_owned));
        }
    }
    if line.starts_with('[')
        && let Some((_, rest)) = line.split_once("]: ")
    {
        found.extend(target(rest));
    }
    found
}

/// The anchor of a heading, as on forges and in mdBook.
fn slug(title: &str) -> String {
    // Only the text of a link counts.
    let mut text = String::new();
    let mut rest = title;
    while let Some((before, after)) = rest.split_once("](") {
        text.push_str(before);
        rest = after.split_once(')').map_or("", |(_, rest)| rest);
    }
    text.push_str(rest);
    let kept = text.chars().filter(|char| char.is_alphanumeric() || matches!(char, ' ' | '-' | '_'));
    kept.flat_map(char::to_lowercase).map(|char| if char == ' ' { '-' } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_are_made_as_forges_make_them() {
        let page = read("# A `b_c`, d: e\n\n## A\n## A\n### [F](g.md)-h\n<a id=\"own\"></a>\n");
        assert_eq!(page.anchors, ["a-b_c-d-e", "a", "a-1", "f-h", "own"]);
    }

    #[test]
    fn links_in_code_are_none() {
        let page = read("[a](b.md) `[c](d.md)` ![e](f(1).svg \"g\")\n```sh\n[h](i.md)\n```\n[j]: k.md\n");
        let links: Vec<&str> = page.links.iter().map(|(_, link)| &**link).collect();
        assert_eq!(links, ["b.md", "f(1).svg", "k.md"]);
    }

    #[test]
    fn a_block_keeps_its_tag_and_loses_its_indentation() {
        let page = read("- x\n\n  ```sh,run\n  a\n    b\n  ```\n");
        assert_eq!(page.blocks, [Block { line: 3, tag: "sh,run".into(), text: "a\n  b\n".into() }]);
    }
}
