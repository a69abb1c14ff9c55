//! `math.random` as Redis has it: the same numbers from the same seed everywhere.
//!
//! The 48-bit generator of `lrand48`; its state outlives scripts, as Redis' does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mlua::{Lua, MultiValue, Table, Value};

use super::arguments::{Arguments, fail};
use super::vm::is_running;

const FACTOR: u64 = 0x5_DEEC_E66D;
const INCREMENT: u64 = 0xB;
const MASK: u64 = (1 << 48) - 1;
const LOWEST: u64 = 0x330E;
/// Of a process in which nobody has sown.
const FIRST: u64 = 0x1234_ABCD_330E;
const NUMBER_MAX: f64 = 2_147_483_647.0;

/// One generator, shared by the interpreters of a shard.
#[derive(Clone, Debug)]
pub struct Dice(Arc<AtomicU64>);

impl Default for Dice {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(FIRST)))
    }
}

impl Dice {
    fn seed(&self, seed: i32) {
        let state = (u64::from(seed.cast_unsigned()) << 16) | LOWEST;
        self.0.store(state, Ordering::Relaxed);
    }

    /// 31 bits.
    fn next(&self) -> u64 {
        let state = self.0.load(Ordering::Relaxed);
        let state = state.wrapping_mul(FACTOR).wrapping_add(INCREMENT) & MASK;
        self.0.store(state, Ordering::Relaxed);
        state >> 17
    }

    /// From 0 up to 1.
    fn fraction(&self) -> f64 {
        (self.next() % 2_147_483_647) as f64 / NUMBER_MAX
    }

    /// Puts `random` and `randomseed` into `math`.
    pub(super) fn install(&self, lua: &Lua, math: &Table) -> mlua::Result<()> {
        let dice = self.clone();
        let random =
            lua.create_function(move |lua, values: MultiValue| dice.random(lua, values))?;
        math.raw_set("random", random)?;
        let dice = self.clone();
        let seed = lua.create_function(move |lua, values: MultiValue| {
            if !is_running(lua) {
                let words = "math.randomseed can only be called inside a script invocation";
                return Err(fail(lua, words));
            }
            let seed = Arguments::new(lua, values).integer(1)?;
            dice.seed(seed as i32);
            Ok(())
        })?;
        math.raw_set("randomseed", seed)
    }

    fn random(&self, lua: &Lua, values: MultiValue) -> mlua::Result<Value> {
        if !is_running(lua) {
            let words = "math.random can only be called inside a script invocation";
            return Err(fail(lua, words));
        }
        let fraction = self.fraction();
        let given = Arguments::new(lua, values);
        // C's `int`, which wraps around.
        let int = |number| given.integer(number).map(|value| value as i32);
        let value = match given.len() {
            0 => fraction,
            1 => {
                let high = int(1)?;
                if high < 1 {
                    return Err(given.wrong(1, "interval is empty"));
                }
                (fraction * f64::from(high)).floor() + 1.0
            }
            2 => {
                let (low, high) = (int(1)?, int(2)?);
                if low > high {
                    return Err(given.wrong(2, "interval is empty"));
                }
                let width = high.wrapping_sub(low).wrapping_add(1);
                (fraction * f64::from(width)).floor() + f64::from(low)
            }
            _ => return Err(fail(lua, "wrong number of arguments")),
        };
        Ok(Value::Number(value))
    }
}
