//! Wildcards: the files of a store that match a name.

use object_store::ObjectStoreExt;
use object_store::path::Path;

use super::super::error::{DataError, listed};
use super::super::stores::Stores;
use super::file::{Source, TIMEOUT, bounded, unreachable_error};
use super::store::Location;

/// The files that match `name`, at least one.
pub(super) async fn expand(location: &Location, name: &str) -> Result<Vec<Source>, DataError> {
    let found = if location.segments.iter().any(|segment| has_wildcard(segment)) {
        if !location.lists {
            let reason =
                "wildcards need a store that can list its files; name each file, or use s3, gs or az".to_owned();
            return Err(DataError::Location { location: name.to_owned(), reason });
        }
        walk(location, name).await?
    } else {
        head(location, name).await?.into_iter().collect()
    };
    if found.is_empty() {
        return Err(DataError::NothingMatches {
            pattern: name.to_owned(),
            found: what_is_there(location, name).await?,
        });
    }
    Ok(found)
}

fn has_wildcard(segment: &str) -> bool {
    segment.contains(['*', '?'])
}

fn source(location: &Location, path: Path, size: u64) -> Source {
    let url = format!("{}/{path}", location.root);
    Source { stores: Stores::clone(&location.stores), store: location.store.clone(), path, url, size }
}

fn joined(segments: &[String], name: &str) -> Result<Path, DataError> {
    Path::parse(segments.join("/"))
        .map_err(|error| DataError::Location { location: name.to_owned(), reason: format!("{error}; rename it") })
}

/// The file of a name without wildcards.
async fn head(location: &Location, name: &str) -> Result<Option<Source>, DataError> {
    let path = joined(&location.segments, name)?;
    match tokio::time::timeout(TIMEOUT, location.store.head(&path)).await {
        Ok(Ok(meta)) => Ok(Some(source(location, path, meta.size))),
        Ok(Err(object_store::Error::NotFound { .. })) if location.lists => Ok(None),
        Ok(Err(error)) => Err(unreachable_error(&location.stores, name, &error)),
        Err(_) => bounded(&location.stores, name, std::future::pending()).await,
    }
}

/// The files of a name with wildcards: folder by folder. Only folders before a segment with a wildcard are listed.
async fn walk(location: &Location, name: &str) -> Result<Vec<Source>, DataError> {
    let mut folders = vec![Vec::<String>::new()];
    let mut files = Vec::new();
    for (depth, pattern) in location.segments.iter().enumerate() {
        let last = depth + 1 == location.segments.len();
        let mut below = Vec::new();
        for mut folder in folders {
            if !last && !has_wildcard(pattern) {
                folder.push(pattern.clone());
                below.push(folder);
                continue;
            }
            let listing = list(location, &folder, name).await?;
            if last {
                let fits =
                    listing.files.into_iter().filter(|(path, _)| matches(pattern, path.filename().unwrap_or("")));
                files.extend(fits.map(|(path, size)| source(location, path, size)));
            } else {
                for child in listing.folders.into_iter().filter(|child| matches(pattern, child)) {
                    below.push(folder.iter().cloned().chain([child]).collect());
                }
            }
        }
        folders = below;
    }
    Ok(files)
}

struct Listing {
    folders: Vec<String>,
    files: Vec<(Path, u64)>,
}

async fn list(location: &Location, folder: &[String], name: &str) -> Result<Listing, DataError> {
    let prefix = joined(folder, name)?;
    let request = async {
        match location.store.list_with_delimiter(Some(&prefix)).await {
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            other => other.map(Some),
        }
    };
    let Some(found) = bounded(&location.stores, name, request).await? else {
        return Ok(Listing { folders: Vec::new(), files: Vec::new() });
    };
    let folders = found.common_prefixes.iter().filter_map(|path| path.filename().map(str::to_owned)).collect();
    Ok(Listing { folders, files: found.objects.into_iter().map(|meta| (meta.location, meta.size)).collect() })
}

/// The contents of the deepest folder of the name without a wildcard, for the message.
async fn what_is_there(location: &Location, name: &str) -> Result<String, DataError> {
    let literal = location.segments.iter().take_while(|segment| !has_wildcard(segment)).count();
    let folder = &location.segments[..literal.min(location.segments.len().saturating_sub(1))];
    let listing = list(location, folder, name).await?;
    if literal == location.segments.len() && location.segments.last().is_some_and(|last| listing.folders.contains(last))
    {
        return Ok(format!("it is a folder, whose files are named by `{}/*.parquet`", name.trim_end_matches('/')));
    }
    let mut names = listing.folders.iter().map(|name| format!("{name}/")).collect::<Vec<_>>();
    names.extend(listing.files.iter().filter_map(|(path, _)| path.filename().map(str::to_owned)));
    names.sort();
    let folder = format!("{}/{}", location.root, folder.join("/"));
    Ok(match names.as_slice() {
        [] => format!("the folder `{folder}` is empty or does not exist"),
        names => format!("the folder `{folder}` holds {}", listed(names)),
    })
}

/// Whether a name matches a pattern in which `*` matches any text and `?` any character.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        if p < pattern.len() && pattern[p] == '*' {
            star = Some((p, n));
            p += 1;
        } else if p < pattern.len() && (pattern[p] == '?' || pattern[p] == name[n]) {
            p += 1;
            n += 1;
        } else if let Some((star_p, star_n)) = star {
            star = Some((star_p, star_n + 1));
            p = star_p + 1;
            n = star_n + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::LocalStores;

    #[test]
    fn wildcards_stand_for_what_they_should() {
        for (pattern, name, fits) in [
            ("*", "", true),
            ("train-*.parquet", "train-00.parquet", true),
            ("train-*.parquet", "train-.parquet", true),
            ("train-*.parquet", "test-00.parquet", false),
            ("train-*.parquet", "train-00.parquet.crc", false),
            ("?.parquet", "ä.parquet", true),
            ("?.parquet", "ab.parquet", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }

    #[tokio::test]
    async fn shards_are_found_in_any_folder_and_sorted() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for name in ["b/x-1.parquet", "a/x-2.parquet", "a/x-1.parquet", "a/y.txt", "c/d/x-1.parquet"] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("it is in a folder")).expect("the folder can be made");
            std::fs::write(path, name).expect("the file can be written");
        }
        let name = format!("{}/?/x-*.parquet", folder.path().display());
        let twice = [name.clone(), name];
        let found = super::super::resolve(&twice, &LocalStores::shared()).await.expect("there are three");
        let names: Vec<_> =
            found.iter().map(|file| file.url().rsplitn(3, '/').take(2).collect::<Vec<_>>().join("<")).collect();
        assert_eq!(names, ["x-1.parquet<a", "x-2.parquet<a", "x-1.parquet<b"]);
        assert_eq!(found[2].read(2..5).await.expect("it is there"), "x-1");
        assert_eq!(found[2].read_beside("./x-1.parquet").await.expect("it is there"), "b/x-1.parquet");
        assert!(found[2].read_beside("../a/y.txt").await.is_err(), "a row must not reach outside its folder");
    }
}
