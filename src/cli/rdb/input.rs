//! The file that is read: by its name, or stdin.

use std::fs::File;
use std::io::{self, Read, Stdin};
use std::path::{Path, PathBuf};

use crate::cli::exit::ExitStatus;
use crate::cli::output::fail;

/// FILE of every verb.
#[derive(Debug, clap::Args)]
pub struct FileArgs {
    /// The RDB file; `-` reads stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// An open file.
pub enum Input {
    /// Named on the command line, with its size in bytes if it has one.
    File(File, Option<u64>),
    /// `-`.
    Stdin(Stdin),
}

impl FileArgs {
    /// The name, for messages.
    pub fn name(&self) -> String {
        if self.is_stdin() {
            "stdin".to_owned()
        } else {
            self.file.display().to_string()
        }
    }

    /// Whether the file comes through stdin, where then nobody can answer.
    pub fn is_stdin(&self) -> bool {
        self.file == Path::new("-")
    }

    /// Opens it, or prints why not.
    ///
    /// # Errors
    /// The exit code of a wrong command line.
    pub fn open(&self) -> Result<Input, ExitStatus> {
        if self.is_stdin() {
            return Ok(Input::Stdin(io::stdin()));
        }
        let opened = File::open(&self.file).and_then(|file| {
            let metadata = file.metadata()?;
            if metadata.is_dir() {
                return Err(io::ErrorKind::IsADirectory.into());
            }
            let size = metadata.is_file().then_some(metadata.len());
            Ok(Input::File(file, size))
        });
        opened.map_err(|error| {
            fail(
                &format!("cannot open {}: {error}", self.name()),
                "name an RDB file that this user may read, or - for stdin",
            );
            ExitStatus::Usage
        })
    }
}

impl Input {
    /// Bytes of the whole file, if that is known.
    pub fn size(&self) -> Option<u64> {
        match self {
            Self::File(_, size) => *size,
            Self::Stdin(_) => None,
        }
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File(file, _) => file.read(buffer),
            Self::Stdin(stdin) => stdin.read(buffer),
        }
    }
}
