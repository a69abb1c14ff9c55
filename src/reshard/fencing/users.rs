//! Whose posts there are, and as whom proxies log in: one user for each epoch
//! that a job may bring.
//!
//! ```text
//! epoch         e-1            e              e+1
//! layout        old            new            old again
//! user          old            new            back
//! forward       rights end     come
//! back          fenced still   rights end     come
//! ```

use crate::reshard::fence::{EpochUser, fence_value, user_name};
use crate::reshard::record::Direction;
use crate::upstream::config::Secret;

/// Whose posts these are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mission {
    /// The pool.
    pub pool: String,
    /// The job.
    pub job: String,
    /// Epoch of the new layout.
    pub epoch: u64,
}

impl Mission {
    /// Epoch that a switch in this direction leaves.
    pub fn left_epoch(&self, direction: Direction) -> u64 {
        match direction {
            Direction::Forward => self.epoch.saturating_sub(1),
            Direction::Back => self.epoch,
        }
    }

    /// Epoch that it brings.
    pub fn coming_epoch(&self, direction: Direction) -> u64 {
        self.left_epoch(direction) + 1
    }

    /// What the fence key holds while a switch in this direction keeps off who is
    /// late, and ever since.
    pub fn fence_value(&self, direction: Direction) -> String {
        fence_value(&self.job, self.left_epoch(direction))
    }

    /// Name of the user whose rights end at the switch to the new layout.
    pub fn old_user(&self) -> String {
        user_name(&self.pool, self.left_epoch(Direction::Forward))
    }

    /// Name of the user that the new layout is served as.
    pub fn new_user(&self) -> String {
        user_name(&self.pool, self.epoch)
    }

    /// Name of the user that the old layout is served as after a rollback.
    pub fn back_user(&self) -> String {
        user_name(&self.pool, self.coming_epoch(Direction::Back))
    }

    /// All of them.
    pub fn user_names(&self) -> [String; 3] {
        [self.old_user(), self.new_user(), self.back_user()]
    }
}

/// The users of the three epochs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Users {
    /// The one whose rights end at the switch.
    pub old: EpochUser,
    /// The one that the new layout is served as.
    pub new: EpochUser,
    /// The one that the old layout is served as after a rollback.
    pub back: EpochUser,
}

impl Users {
    /// Whose rights end at a switch in this direction.
    pub fn leaving(&self, direction: Direction) -> &EpochUser {
        match direction {
            Direction::Forward => &self.old,
            Direction::Back => &self.new,
        }
    }

    /// As whom the layout that it brings is served.
    pub fn coming(&self, direction: Direction) -> &EpochUser {
        match direction {
            Direction::Forward => &self.new,
            Direction::Back => &self.back,
        }
    }
}

/// A password that nobody can guess: 256 bits of the system's randomness.
///
/// # Errors
/// The system has none.
pub fn new_password() -> std::io::Result<Secret> {
    use std::io::Read as _;
    let mut bytes = [0_u8; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Secret::new(text))
}
