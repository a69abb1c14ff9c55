//! DEBUG PROTOCOL: a reply of each kind, by which clients test how they read it.

use crate::store::commands::context::{Context, Outcome};
use crate::store::commands::failure::Failure;

const NUMBER: &str = "1234567999999999999999999999999999999";

pub(super) fn tell(context: &mut Context<'_>, kind: &[u8]) -> Outcome {
    let reply = &mut *context.reply;
    let is_resp3 = reply.is_resp3();
    let three = |reply: &mut crate::store::commands::Reply| (0..3).for_each(|n| reply.integer(n));
    match kind.to_ascii_lowercase().as_slice() {
        b"string" => reply.bulk(b"Hello World"),
        b"integer" => reply.integer(12345),
        b"double" if is_resp3 => reply.raw().extend_from_slice(b",3.141\r\n"),
        b"double" => reply.bulk(b"3.141"),
        b"bignum" if is_resp3 => {
            let text = format!("({NUMBER}\r\n");
            reply.raw().extend_from_slice(text.as_bytes());
        }
        b"bignum" => reply.bulk(NUMBER.as_bytes()),
        b"null" => reply.null(),
        b"array" => {
            reply.array(3);
            three(reply);
        }
        b"set" => {
            reply.set(3);
            three(reply);
        }
        b"map" => {
            reply.map(3);
            for number in 0..3 {
                reply.integer(number);
                reply.boolean(number == 1);
            }
        }
        b"attrib" => {
            if is_resp3 {
                reply.raw().extend_from_slice(b"|1\r\n");
                reply.bulk(b"key-popularity");
                reply.array(2);
                reply.bulk(b"key:123");
                reply.integer(90);
            }
            reply.bulk(b"Some real reply following the attribute");
        }
        b"push" if !is_resp3 => {
            return Err(Failure::words("ERR RESP2 is not supported by this command"));
        }
        b"push" => {
            reply.push(2);
            reply.bulk(b"server-cpu-usage");
            reply.integer(42);
            reply.bulk(b"Some real reply following the push reply");
        }
        b"verbatim" => reply.verbatim("This is a verbatim\nstring"),
        b"true" => reply.boolean(true),
        b"false" => reply.boolean(false),
        _ => {
            return Err(Failure::words(
                "ERR Wrong protocol type name. Please use one of the following: \
                 string|integer|double|bignum|null|array|set|map|attrib|push|verbatim|true|false",
            ));
        }
    }
    Ok(())
}
