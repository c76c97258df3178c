//! A file of predictions that appears under its name once it is complete.

use std::fs::{File, Permissions};
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use antiphon_core::ids::ModalityName;
use antiphon_core::spec::Classes;
use anyhow::{Context as _, anyhow, bail};
use tempfile::NamedTempFile;

use super::parquet::ParquetLines;
use super::prediction::Prediction;

/// A file of predictions in progress. It has a temporary name in the same folder until [`OutputFile::finish`] renames
/// it. If dropped before, it is deleted.
pub struct OutputFile {
    target: PathBuf,
    overwrite: bool,
    temporary: NamedTempFile,
    content: Content,
}

enum Content {
    Lines(BufWriter<File>),
    Parquet(Box<ParquetLines<File>>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Lines,
    Parquet,
}

impl OutputFile {
    /// Checks that a file can be written here. `overwrite` allows an existing file.
    ///
    /// # Errors
    /// The extension is not `.jsonl`, `.json`, `.ndjson` or `.parquet`, the file exists, or the folder does not exist.
    pub fn check(target: &Path, overwrite: bool) -> anyhow::Result<()> {
        kind(target)?;
        if target.is_dir() {
            bail!("`{}` is a folder; name a file in it", target.display());
        }
        if !overwrite && target.exists() {
            return Err(exists(target));
        }
        let folder = folder(target);
        if !folder.is_dir() {
            bail!("there is no folder `{}` to write predictions to; create it first", folder.display());
        }
        Ok(())
    }

    /// Starts a file of predictions for these modalities and classes.
    ///
    /// # Errors
    /// As [`OutputFile::check`], or the folder is not writable.
    pub fn create(
        target: &Path,
        overwrite: bool,
        modalities: &[ModalityName],
        classes: &Classes,
    ) -> anyhow::Result<Self> {
        Self::check(target, overwrite)?;
        let name = target.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let temporary = tempfile::Builder::new()
            .prefix(&format!(".{name}."))
            .suffix(".part")
            // The umask restricts these permissions, as for any other file.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(folder(target))
            .with_context(|| format!("cannot create a temporary file beside `{}`", target.display()))?;
        let file = temporary.reopen()?;
        let content = match kind(target)? {
            Kind::Lines => Content::Lines(BufWriter::new(file)),
            Kind::Parquet => Content::Parquet(Box::new(ParquetLines::new(file, modalities, classes)?)),
        };
        Ok(Self { target: target.to_owned(), overwrite, temporary, content })
    }

    /// Appends a prediction.
    ///
    /// # Errors
    /// The file cannot be written to.
    pub fn write(&mut self, prediction: &Prediction) -> anyhow::Result<()> {
        match &mut self.content {
            Content::Lines(file) => write_line(file, prediction),
            Content::Parquet(file) => file.write(prediction),
        }
    }

    /// Renames the complete file to its final name.
    ///
    /// # Errors
    /// The file cannot be written to, or a file of that name has been created meanwhile.
    pub fn finish(self) -> anyhow::Result<()> {
        match self.content {
            Content::Lines(mut file) => file.flush()?,
            Content::Parquet(file) => file.finish()?,
        }
        self.temporary.as_file().sync_all()?;
        let renamed = if self.overwrite {
            self.temporary.persist(&self.target)
        } else {
            self.temporary.persist_noclobber(&self.target)
        };
        match renamed {
            Ok(_) => Ok(()),
            Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => Err(exists(&self.target)),
            Err(error) => Err(error.error).with_context(|| format!("cannot write `{}`", self.target.display())),
        }
    }
}

/// One prediction as a line of JSON.
pub(crate) fn write_line(out: &mut impl std::io::Write, prediction: &Prediction) -> anyhow::Result<()> {
    let line = serde_json::to_string(prediction)?;
    out.write_all(line.as_bytes())?;
    out.write_all(b"\n")?;
    Ok(())
}

fn kind(target: &Path) -> anyhow::Result<Kind> {
    let extension = target.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    match extension.as_deref() {
        Some("jsonl" | "json" | "ndjson") => Ok(Kind::Lines),
        Some("parquet") => Ok(Kind::Parquet),
        _ => {
            let target = target.display();
            Err(anyhow!(
                "cannot tell the format of `{target}` from its extension; use .jsonl for JSON lines, or \
                 .parquet"
            ))
        }
    }
}

fn folder(target: &Path) -> &Path {
    target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn exists(target: &Path) -> anyhow::Error {
    anyhow!("`{}` already exists; --force overwrites it", target.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prediction() -> Prediction {
        let line = r#"{"id":"x","label":null,"prediction":0,"probabilities":[1.0,0.0],"modalities":{}}"#;
        serde_json::from_str(line).expect("a prediction")
    }

    #[test]
    fn a_file_appears_complete_or_not_at_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let count = || std::fs::read_dir(folder.path()).expect("it can be read").count();
        for name in ["out.jsonl", "out.parquet"] {
            let target = folder.path().join(name);
            let begin = |overwrite| OutputFile::create(&target, overwrite, &[], &Classes::Count(2));
            let before = count();
            let mut file = begin(false).expect("it is new");
            file.write(&prediction()).expect("it can be written");
            drop(file);
            assert_eq!(count(), before, "nothing of {name} is left behind");
            begin(false).expect("it is new").finish().expect("it has a name");
            assert_eq!((count(), target.exists()), (before + 1, true));
            let refused = begin(false).err().expect("it exists").to_string();
            assert_eq!(refused, format!("`{}` already exists; --force overwrites it", target.display()));
            begin(true).expect("it may be overwritten").finish().expect("it has a name");
        }
    }

    #[test]
    fn a_name_taken_meanwhile_is_not_overwritten() {
        let folder = tempfile::tempdir().expect("a folder");
        let target = folder.path().join("out.jsonl");
        let file = OutputFile::create(&target, false, &[], &Classes::Count(2)).expect("it is new");
        std::fs::write(&target, "other").expect("it can be written");
        assert!(file.finish().is_err());
        assert_eq!(std::fs::read_to_string(&target).expect("it exists"), "other");
    }

    #[test]
    fn the_extension_says_what_to_write() {
        for bad in ["out", "out.csv", "no/such/folder/out.jsonl"] {
            assert!(OutputFile::check(Path::new(bad), false).is_err(), "{bad}");
        }
    }
}
