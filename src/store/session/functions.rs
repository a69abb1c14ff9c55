//! FUNCTION and FCALL: libraries that are kept.
//!
//! FUNCTION LOAD, DELETE, FLUSH and RESTORE change rows and are told to the log as they
//! came; the log's replay and a master's stream run them again.

use std::time::Duration;

use bytes::Bytes;

use crate::rdb::{crc64, write_string};
use crate::store::commands::{Args, Failure, Unit};
use crate::store::format::glob;
use crate::store::keyspace::{LIBRARY_NAME_BYTES_MAX, LibraryTexts};
use crate::store::rows::StoreError;
use crate::store::scripts::Libraries;
use crate::store::scripts::libraries::{LOAD_MAX, Policy};

use super::connection::wrong_count;
use super::scripting::split_keys;
use super::shard::Shard;

/// In FUNCTION DUMP and in snapshots, before a library's text.
const FUNCTION2: u8 = 245;
/// Of FUNCTION DUMP's payloads, as Redis 7.0 states it.
const VERSION: u16 = 10;

/// A library of a snapshot or of the rows that cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[error("function library {name:?} cannot be loaded: {why}")]
pub struct LibraryError {
    name: String,
    why: String,
}

fn error(words: &[u8]) -> Failure {
    Failure::Reply([b"ERR ", words].concat().into())
}

impl Shard {
    /// Loads the libraries that the rows hold, in place of those that are there.
    ///
    /// # Errors
    /// [`LibraryError`], and what the engine says, as text.
    pub fn load_libraries(&mut self) -> Result<(), LibraryError> {
        let texts = self
            .keyspace
            .library_texts()
            .map_err(|error| LibraryError {
                name: String::new(),
                why: error.to_string(),
            })?;
        let texts: Vec<Bytes> = texts.into_iter().map(|(_, text)| text).collect();
        self.scripts.libraries = self.libraries_of(&texts)?;
        Ok(())
    }

    /// Libraries of these texts, beside those that are there.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub fn libraries_of(&self, texts: &[Bytes]) -> Result<Libraries, LibraryError> {
        let mut libraries = self.scripts.fresh_libraries();
        for text in texts {
            libraries
                .load(text, false, None)
                .map_err(|why| LibraryError {
                    name: String::from_utf8_lossy(text.get(..64).unwrap_or(text)).into_owned(),
                    why: String::from_utf8_lossy(&why).into_owned(),
                })?;
        }
        Ok(libraries)
    }

    /// Takes a master's libraries in place of its own. Their rows are the caller's business.
    pub fn set_libraries(&mut self, libraries: Libraries) {
        self.scripts.libraries = libraries;
    }

    /// What the rows of some libraries are.
    pub fn texts_of(libraries: &Libraries) -> LibraryTexts {
        libraries
            .iter()
            .map(|(name, library)| (name.clone(), Bytes::from(library.text.clone())))
            .collect()
    }

    pub(super) fn fcall(
        &mut self,
        key: usize,
        args: Args<'_>,
        unit: &mut Unit,
    ) -> Result<(), Failure> {
        let Some(found) = self.scripts.libraries.find(args.at(1)) else {
            return Err(Failure::words("ERR Function not found"));
        };
        let (name, flags) = (found.name.clone(), found.flags);
        let keys = args
            .integer(2)
            .map_err(|_| Failure::words("ERR Bad number of keys provided"))?;
        let keys = split_keys(args, keys)?;
        let name_told = String::from_utf8_lossy(&name).into_owned();
        let runs = self.admit_script(key, name_told, Some(flags), args)?;
        let Some((vm, function)) = self.scripts.libraries.lend(&name) else {
            return Err(Failure::words("ERR Function not found"));
        };
        let (vm, ran) = self.run_script(vm, &function, runs, keys, args, unit);
        self.scripts.libraries.give_back(vm);
        ran
    }

    pub(super) fn function(
        &mut self,
        key: usize,
        args: Args<'_>,
        unit: &mut Unit,
    ) -> Result<(), Failure> {
        if args.is(1, "LIST") {
            return self.list_functions(key, args);
        }
        if args.is(1, "STATS") {
            return self.function_stats(key);
        }
        if args.is(1, "KILL") {
            return self.kill_script(key, false);
        }
        if args.is(1, "DUMP") {
            let payload = self.dump_functions();
            self.clients[key].reply.bulk(&payload);
            return Ok(());
        }
        let told = self.change_functions(args, Some(LOAD_MAX))?;
        let db = self.clients[key].db;
        unit.begin_next();
        unit.add_request(db, args.request().to_vec());
        let reply = &mut self.clients[key].reply;
        match told {
            Some(name) => reply.bulk(&name),
            None => reply.ok(),
        }
        Ok(())
    }

    /// FUNCTION LOAD, DELETE, FLUSH and RESTORE; the name of what was loaded.
    pub(super) fn change_functions(
        &mut self,
        args: Args<'_>,
        patience: Option<Duration>,
    ) -> Result<Option<Vec<u8>>, Failure> {
        if args.is(1, "LOAD") {
            return self.load_function(args, patience).map(Some);
        }
        if args.is(1, "DELETE") {
            if !self.scripts.libraries.delete(args.at(2)) {
                return Err(Failure::words("ERR Library not found"));
            }
            self.keyspace.remove_library(args.at(2));
        } else if args.is(1, "FLUSH") {
            let is_mode = args.is(2, "SYNC") || args.is(2, "ASYNC");
            match args.len() {
                2 => {}
                3 if is_mode => {}
                3 => {
                    return Err(Failure::words(
                        "ERR FUNCTION FLUSH only supports SYNC|ASYNC option",
                    ));
                }
                _ => return Err(wrong_count("FUNCTION", args)),
            }
            self.keyspace.replace_libraries(&Vec::new())?;
            self.scripts.libraries.clear();
        } else if args.is(1, "RESTORE") {
            self.restore_functions(args)?;
        } else {
            return Err(super::connection::unknown_subcommand("function", args));
        }
        Ok(None)
    }

    fn load_function(
        &mut self,
        args: Args<'_>,
        patience: Option<Duration>,
    ) -> Result<Vec<u8>, Failure> {
        let last = args.len() - 1;
        let mut replaces = false;
        for number in 2..last {
            if !args.is(number, "REPLACE") {
                return Err(Failure::quoting(
                    "ERR Unknown option given: ",
                    args.at(number),
                    "",
                ));
            }
            replaces = true;
        }
        let text = args.at(last);
        let name_len =
            crate::store::scripts::LibraryHeader::of(text).map_or(0, |header| header.name.len());
        if name_len > LIBRARY_NAME_BYTES_MAX {
            return Err(Failure::text(format!(
                "ERR Library names are at most {LIBRARY_NAME_BYTES_MAX} bytes long here"
            )));
        }
        let loaded = self.scripts.libraries.load(text, replaces, patience);
        let name = loaded.map_err(|words| error(&words))?;
        self.keyspace.put_library(&name, text);
        Ok(name)
    }

    fn restore_functions(&mut self, args: Args<'_>) -> Result<(), Failure> {
        let policy = match args.len() {
            3 => Policy::Append,
            4 if args.is(3, "APPEND") => Policy::Append,
            4 if args.is(3, "REPLACE") => Policy::Replace,
            4 if args.is(3, "FLUSH") => Policy::Flush,
            4 => {
                return Err(Failure::words(
                    "ERR Wrong restore policy given, value should be either FLUSH, APPEND or \
                     REPLACE.",
                ));
            }
            _ => return Err(wrong_count("FUNCTION", args)),
        };
        let (texts, failure) = texts_in(args.at(2))?;
        if let Some(failure) = failure {
            // What is wrong with a library before it is told first.
            let mut fresh = self.scripts.fresh_libraries();
            for text in &texts {
                fresh
                    .load(text, false, None)
                    .map_err(|words| error(&words))?;
            }
            return Err(failure);
        }
        let joined = self.scripts.libraries.join(&texts, policy);
        joined.map_err(|words| error(&words))?;
        let all = Self::texts_of(&self.scripts.libraries);
        self.keyspace.replace_libraries(&all)?;
        Ok(())
    }

    fn dump_functions(&self) -> Vec<u8> {
        let mut payload = Vec::new();
        for (_, library) in self.scripts.libraries.iter() {
            payload.push(FUNCTION2);
            write_string(&mut payload, &library.text);
        }
        payload.extend_from_slice(&VERSION.to_le_bytes());
        let checksum = crc64(0, &payload);
        payload.extend_from_slice(&checksum.to_le_bytes());
        payload
    }

    fn list_functions(&mut self, key: usize, args: Args<'_>) -> Result<(), Failure> {
        let (mut with_code, mut pattern) = (false, None);
        let mut at = 2;
        while at < args.len() {
            if !with_code && args.is(at, "WITHCODE") {
                with_code = true;
            } else if pattern.is_none() && args.is(at, "LIBRARYNAME") {
                at += 1;
                let none = Failure::words("ERR library name argument was not given");
                pattern = Some(args.get(at).ok_or(none)?);
            } else {
                return Err(Failure::quoting("ERR Unknown argument ", args.at(at), ""));
            }
            at += 1;
        }
        let is_wanted =
            |name: &[u8]| pattern.is_none_or(|of| glob::matches_ignoring_case(of, name));
        let libraries = self.scripts.libraries.iter();
        let wanted: Vec<_> = libraries.filter(|(name, _)| is_wanted(name)).collect();
        let reply = &mut self.clients[key].reply;
        reply.array(wanted.len());
        for (name, library) in wanted {
            reply.map(if with_code { 4 } else { 3 });
            reply.bulk(b"library_name");
            reply.bulk(name);
            reply.bulk(b"engine");
            reply.bulk(b"LUA");
            reply.bulk(b"functions");
            reply.array(library.functions.len());
            for function in library.functions.values() {
                reply.map(3);
                reply.bulk(b"name");
                reply.bulk(&function.name);
                reply.bulk(b"description");
                reply.bulk_or_null(function.description.as_deref());
                reply.bulk(b"flags");
                let names = function.flags.names();
                reply.set(names.len());
                names.into_iter().for_each(|name| reply.status(name));
            }
            if with_code {
                reply.bulk(b"library_code");
                reply.bulk(&library.text);
            }
        }
        Ok(())
    }

    fn function_stats(&mut self, key: usize) -> Result<(), Failure> {
        let runs = self.scripts.runs.as_ref();
        if let Some(runs) = runs.filter(|runs| runs.is_eval) {
            return Err(super::busy::busy(runs));
        }
        let counts = self.scripts.counts();
        let reply = &mut self.clients[key].reply;
        reply.map(2);
        reply.bulk(b"running_script");
        match runs {
            None => reply.null(),
            Some(runs) => {
                reply.map(3);
                reply.bulk(b"name");
                reply.bulk(runs.name.as_bytes());
                reply.bulk(b"command");
                let request = runs.request.args();
                reply.array(request.len());
                request.from(0).for_each(|word| reply.bulk(word));
                reply.bulk(b"duration_ms");
                let ms = runs.since.elapsed().as_millis();
                reply.integer(i64::try_from(ms).unwrap_or(i64::MAX));
            }
        }
        reply.bulk(b"engines");
        reply.map(1);
        reply.bulk(b"LUA");
        reply.map(2);
        reply.bulk(b"libraries_count");
        reply.count(counts.libraries);
        reply.bulk(b"functions_count");
        reply.count(counts.functions);
        Ok(())
    }
}

/// The libraries of FUNCTION DUMP's payload, up to what is none.
fn texts_in(payload: &[u8]) -> Result<(Vec<Vec<u8>>, Option<Failure>), Failure> {
    let wrong = || Failure::words("ERR DUMP payload version or checksum are wrong");
    let (checked, stated) = payload.split_last_chunk::<8>().ok_or_else(wrong)?;
    let (mut rest, version) = checked.split_last_chunk::<2>().ok_or_else(wrong)?;
    let stated = u64::from_le_bytes(*stated);
    let is_known = u16::from_le_bytes(*version) <= VERSION;
    if !is_known || (stated != 0 && stated != crc64(0, checked)) {
        return Err(wrong());
    }
    let mut texts = Vec::new();
    while let Some((kind, behind)) = rest.split_first() {
        if *kind != FUNCTION2 {
            let failure = Failure::words("ERR given type is not a function");
            return Ok((texts, Some(failure)));
        }
        let Some((text, behind)) = crate::rdb::split_string(behind) else {
            let failure = Failure::words("ERR Failed loading library payload");
            return Ok((texts, Some(failure)));
        };
        texts.push(text);
        rest = behind;
    }
    Ok((texts, None))
}

impl From<StoreError> for LibraryError {
    fn from(error: StoreError) -> Self {
        Self {
            name: String::new(),
            why: error.to_string(),
        }
    }
}
