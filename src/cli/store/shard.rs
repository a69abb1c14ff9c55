//! SHARD: which one is meant.
//!
//! ```text
//! HOST:PORT    unix:/PATH     a shard that runs there
//! store:/DIR   DIR            the one whose files are there, by the socket in it
//! ```

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::cli::exit::ExitStatus;
use crate::cli::output::fail;
use crate::router::address::{STORE_SOCKET, ShardAddress};
use crate::store::client::{ClientError, Login, Place, Target};
use crate::store::server::RESTORING;

/// SHARD and how to log in.
#[derive(Debug, clap::Args)]
pub struct ShardArgs {
    /// HOST:PORT, unix:/PATH, or the directory of its files
    #[arg(value_name = "SHARD")]
    shard: String,
    /// The password is the first line of this file
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// The ACL user
    #[arg(long, value_name = "NAME", requires = "password_file")]
    user: Option<String>,
}

/// What SHARD means now.
pub enum Shard {
    /// Somebody answers there.
    Runs(Target),
    /// Nobody serves the files that are there.
    Rests(PathBuf),
}

impl ShardArgs {
    /// As it was written.
    pub fn name(&self) -> &str {
        &self.shard
    }

    /// What is meant.
    ///
    /// # Errors
    /// It was said; how the command ends.
    pub fn find(&self) -> Result<Shard, ExitStatus> {
        let login = self.login()?;
        let runs = |place| Shard::Runs(Target { place, login });
        match self.shard.parse() {
            Ok(ShardAddress::Tcp { host, port }) => Ok(runs(Place::Tcp(host, port))),
            Ok(ShardAddress::Unix(path)) => Ok(runs(Place::Unix(path))),
            Ok(ShardAddress::Store(dir)) => in_directory(&dir, runs),
            Err(error) => {
                let dir = Path::new(&self.shard);
                if dir.is_dir() {
                    return in_directory(dir, runs);
                }
                fail(
                    &match dir.exists() {
                        true => format!("`{}` is no directory", self.shard),
                        false => format!(
                            "there is no directory `{}`, and as an address: {error}",
                            self.shard
                        ),
                    },
                    "write HOST:PORT, unix:/PATH, or the directory of a shard's files",
                );
                Err(ExitStatus::Usage)
            }
        }
    }

    fn login(&self) -> Result<Option<Login>, ExitStatus> {
        let Some(file) = &self.password_file else {
            return Ok(None);
        };
        match std::fs::read_to_string(file) {
            Ok(text) => Ok(Some(Login {
                user: self.user.clone(),
                password: text.lines().next().unwrap_or_default().to_owned(),
            })),
            Err(error) => {
                fail(
                    &format!("cannot read {}: {error}", file.display()),
                    "put the password into it, and let this user read it",
                );
                Err(ExitStatus::Usage)
            }
        }
    }
}

/// What to do about a shard that does not answer as it should.
pub fn help_of(error: &ClientError) -> &'static str {
    let ClientError::Refused { words, .. } = error else {
        return "name a shard that runs: HOST:PORT, unix:/PATH, or the directory of its files";
    };
    let begins = |word: &str| words.starts_with(word);
    if begins("NOAUTH") {
        "give its password with --password-file"
    } else if begins("WRONGPASS") {
        "check --user, and what is in the file of --password-file"
    } else if begins("NOPERM") {
        "name a user with --user who may do that"
    } else if words.contains("without any password configured") {
        "it has no password: leave out --password-file"
    } else {
        "it says why: try it again when that has passed"
    }
}

/// A socket that nobody listens at was left by one that was killed.
fn in_directory(dir: &Path, runs: impl FnOnce(Place) -> Shard) -> Result<Shard, ExitStatus> {
    let socket = dir.join(STORE_SOCKET);
    match UnixStream::connect(&socket) {
        Ok(_) => Ok(runs(Place::Unix(socket))),
        Err(error) if is_nobody(&error) && dir.join(RESTORING).exists() => {
            fail(
                &format!("a restore into {} did not come to its end", dir.display()),
                "run it again, it begins anew there",
            );
            Err(ExitStatus::Refused)
        }
        Err(error) if is_nobody(&error) && dir.join("log").is_dir() => {
            Ok(Shard::Rests(dir.to_owned()))
        }
        Err(error) if is_nobody(&error) => {
            fail(
                &format!("{} holds no built-in shard", dir.display()),
                "name the directory that `keyferry store --dir` was given",
            );
            Err(ExitStatus::Usage)
        }
        Err(error) => {
            fail(
                &format!("cannot reach {}: {error}", socket.display()),
                "run this as the user of the shard, or name its HOST:PORT",
            );
            Err(ExitStatus::Failed)
        }
    }
}

fn is_nobody(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}
