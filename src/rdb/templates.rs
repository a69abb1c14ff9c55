//! Hash templates of a file: field names once, hashes that refer to them.
//!
//! ```text
//! opcode 242:  id, n, n x name                              kept here
//! type 30:     listpack of id, value, value ..   ---.
//! type 32:     id, n x value                     ---+-> type 4: n, n x (name, value)
//! ```
//!
//! Ids mean something inside one file only, so what leaves the scanner is the
//! plain hash. Names are copied as they are written, packed or not. The layout
//! is that of Redis 8.10; two independent parsers agree on it.
//!
//! Invariants: at most [`TEMPLATES_MAX`] templates and [`TEMPLATE_BYTES_MAX`]
//! bytes of names are kept; a hash is never made larger than asked for.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::listpack::Listpack;
use super::reader::{Malformed, Reader};
use super::scan_error::ScanErrorKind;
use super::text::Text;

/// Templates that are kept of one file.
pub const TEMPLATES_MAX: usize = 1 << 16;
/// Bytes of names that are kept of one file, with [`NAME_OVERHEAD_BYTES`] for each.
pub const TEMPLATE_BYTES_MAX: usize = 16 << 20;
/// What a name costs beside its bytes.
const NAME_OVERHEAD_BYTES: usize = 4;

#[derive(Debug)]
struct Template {
    /// Names as they are written, one after the other.
    names: Box<[u8]>,
    /// Where each of them ends.
    ends: Box<[u32]>,
}

/// The templates of a file so far.
#[derive(Debug, Default)]
pub(super) struct Templates {
    by_id: HashMap<u64, Template>,
    bytes: usize,
}

impl Templates {
    /// Keeps the template that `body` gives.
    pub(super) fn add(&mut self, body: &[u8]) -> Result<(), ScanErrorKind> {
        let mut reader = Reader::new(body);
        let (id, count) = (reader.number()?, reader.number()?);
        let start = reader.position();
        // Every name has a byte at least, so a count that lies ends the loop.
        let overhead = usize::try_from(count)
            .unwrap_or(usize::MAX)
            .saturating_mul(NAME_OVERHEAD_BYTES);
        let bytes = body.len().saturating_add(overhead);
        let total = self.bytes.saturating_add(bytes);
        if self.by_id.len() >= TEMPLATES_MAX || total > TEMPLATE_BYTES_MAX {
            return Err(ScanErrorKind::Templates {
                count: self.by_id.len() + 1,
                bytes: total,
            });
        }
        let mut ends = Vec::new();
        for _ in 0..count {
            reader.raw_string()?;
            let end = u32::try_from(reader.position() - start);
            ends.push(end.map_err(|_| Malformed::Range("a template's size"))?);
        }
        reader.finish()?;
        let Entry::Vacant(place) = self.by_id.entry(id) else {
            return Err(Malformed::Structure("a hash template stands twice").into());
        };
        place.insert(Template {
            names: body.get(start..).unwrap_or(&[]).into(),
            ends: ends.into(),
        });
        self.bytes = total;
        Ok(())
    }

    /// How many values a hash has that goes by template `id`.
    pub(super) fn fields(&self, id: u64) -> Result<u64, ScanErrorKind> {
        let template = self.by_id.get(&id);
        let template = template.ok_or(ScanErrorKind::UnknownTemplate(id))?;
        Ok(template.ends.len() as u64)
    }

    /// Makes the plain hash of a listpack that begins with a template's id.
    pub(super) fn resolve_listpack(
        &self,
        value: &[u8],
        limit: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), ScanErrorKind> {
        let blob = Reader::new(value).string_within(limit)?;
        let mut listpack = Listpack::new(&blob)?;
        let id = u64::try_from(listpack.number()?);
        let id = id.map_err(|_| Malformed::Range("a hash template's id"))?;
        let mut hash = self.begin(id, limit, out)?;
        for index in 0..hash.template.ends.len() {
            let text = Text::from(listpack.expect()?);
            hash.name(index)?;
            write_length(hash.out, text.len() as u64);
            hash.append(&text)?;
        }
        match listpack.next()? {
            None => Ok(()),
            Some(_) => Err(Malformed::Structure("a hash has more values than its template").into()),
        }
    }

    /// Makes the plain hash of a template's id and as many strings.
    pub(super) fn resolve_array(
        &self,
        value: &[u8],
        limit: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), ScanErrorKind> {
        let mut reader = Reader::new(value);
        let id = reader.number()?;
        let mut hash = self.begin(id, limit, out)?;
        for index in 0..hash.template.ends.len() {
            hash.name(index)?;
            hash.append(reader.raw_string()?)?;
        }
        Ok(reader.finish()?)
    }

    fn begin<'t>(
        &'t self,
        id: u64,
        limit: usize,
        out: &'t mut Vec<u8>,
    ) -> Result<Resolving<'t>, ScanErrorKind> {
        let template = self.by_id.get(&id);
        let template = template.ok_or(ScanErrorKind::UnknownTemplate(id))?;
        out.clear();
        write_length(out, template.ends.len() as u64);
        Ok(Resolving {
            template,
            limit,
            out,
        })
    }
}

/// A plain hash being written.
struct Resolving<'t> {
    template: &'t Template,
    limit: usize,
    out: &'t mut Vec<u8>,
}

impl Resolving<'_> {
    fn name(&mut self, index: usize) -> Result<(), ScanErrorKind> {
        let ends = &self.template.ends;
        let start = match index.checked_sub(1).and_then(|before| ends.get(before)) {
            Some(&end) => end as usize,
            None => 0,
        };
        let end = ends.get(index).map_or(start, |&end| end as usize);
        let name = self.template.names.get(start..end).unwrap_or(&[]);
        self.append(name)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), ScanErrorKind> {
        let needed = self.out.len().saturating_add(bytes.len());
        if needed > self.limit {
            return Err(ScanErrorKind::TooLarge {
                needed,
                max: self.limit,
            });
        }
        self.out.extend_from_slice(bytes);
        Ok(())
    }
}

/// Appends a length in its shortest form.
fn write_length(out: &mut Vec<u8>, number: u64) {
    match number {
        0..=0x3f => out.push(number as u8),
        0x40..=0x3fff => out.extend_from_slice(&(0x4000 | number as u16).to_be_bytes()),
        0x4000..=0xffff_ffff => {
            out.push(0x80);
            out.extend_from_slice(&(number as u32).to_be_bytes());
        }
        _ => {
            out.push(0x81);
            out.extend_from_slice(&number.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(
        templates: &Templates,
        value: &[u8],
        limit: usize,
    ) -> Result<Vec<u8>, ScanErrorKind> {
        let mut out = b"of the one before".to_vec();
        templates
            .resolve_array(value, limit, &mut out)
            .map(|()| out)
    }

    #[test]
    fn both_references_become_the_same_plain_hash() {
        let mut templates = Templates::default();
        templates.add(b"\x07\x02\x02f1\xc0\x05").unwrap();
        assert_eq!(templates.fields(7), Ok(2));
        let plain = b"\x02\x02f1\x01a\xc0\x05\x0212";
        assert_eq!(resolved(&templates, b"\x07\x01a\x0212", 99).unwrap(), plain);
        let mut out = Vec::new();
        let listpack = b"\x0e\x0e\0\0\0\x03\0\x07\x01\x81a\x02\x0c\x01\xff";
        templates.resolve_listpack(listpack, 99, &mut out).unwrap();
        assert_eq!(out, plain);
    }

    #[test]
    fn what_does_not_fit_its_template_is_refused() {
        let mut templates = Templates::default();
        templates.add(b"\x00\x02\x01a\x01b").unwrap();
        let twice = templates.add(b"\x00\x01\x01c").unwrap_err();
        assert!(matches!(twice, ScanErrorKind::Malformed(_)), "{twice}");
        let unknown = resolved(&templates, b"\x01\x01a", 99);
        assert_eq!(unknown, Err(ScanErrorKind::UnknownTemplate(1)));
        assert_eq!(templates.fields(1), Err(ScanErrorKind::UnknownTemplate(1)));
        for wrong in [&b"\x00\x01a"[..], b"\x00\x01a\x01b\x01c", b""] {
            assert!(resolved(&templates, wrong, 99).is_err(), "{wrong:?}");
        }
        let short = resolved(&templates, b"\x00\x03aaa\x03bbb", 12);
        assert_eq!(
            short,
            Err(ScanErrorKind::TooLarge {
                needed: 13,
                max: 12
            })
        );
        let long = b"\x0d\x0d\0\0\0\x04\0\x00\x01\x01\x01\x02\x01\xff";
        assert!(
            templates
                .resolve_listpack(long, 99, &mut Vec::new())
                .is_err()
        );
    }

    #[test]
    fn templates_are_bounded_by_count_and_by_bytes() {
        let mut templates = Templates::default();
        let huge = templates
            .add(b"\x00\x81\x7f\xff\xff\xff\xff\xff\xff\xff")
            .unwrap_err();
        assert!(
            matches!(huge, ScanErrorKind::Templates { count: 1, .. }),
            "{huge}"
        );
        for id in 0..TEMPLATES_MAX {
            let mut body = Vec::new();
            write_length(&mut body, id as u64);
            body.extend_from_slice(b"\x01\x01f");
            templates.add(&body).unwrap();
        }
        let refused = templates.add(b"\x81\0\0\0\x01\0\0\0\0\x01\x01f");
        assert!(matches!(refused, Err(ScanErrorKind::Templates { .. })));
    }

    #[test]
    fn lengths_are_written_as_they_are_read() {
        for number in [0, 63, 64, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            write_length(&mut out, number);
            let mut reader = Reader::new(&out);
            assert_eq!(reader.number(), Ok(number));
            assert!(reader.is_empty());
        }
    }
}
