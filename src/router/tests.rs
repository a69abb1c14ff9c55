//! Vectors, order and properties of layouts as a whole.
