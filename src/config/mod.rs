//! Config files: what was typed becomes what it means.
