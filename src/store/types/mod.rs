//! Operations on one object, wherever its parts are: what commands, DUMP, RESTORE and
//! DEBUG DIGEST are written in. They know rows, and no replies.

pub mod string;
