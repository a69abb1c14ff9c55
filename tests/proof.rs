//! The cutover under load, with every operation of every client checked; and the
//! same with mistakes planted in the product, each of which must be caught.

#[path = "proof/cutovers.rs"]
mod cutovers;
#[path = "proof/faults.rs"]
mod faults;
#[path = "proof/mutants.rs"]
mod mutants;
#[path = "proof/mod.rs"]
mod proof;
mod support;
