//! The number of free task ids.
//!
//! The kernel assigns ids cyclically: upwards from the last one, and after
//! pid_max again from 300 (`RESERVED_PIDS`, and `idr_alloc_cyclic` in
//! `alloc_pid`, kernel/pid.c of Linux 6.1).

/// Lower ids are not assigned again after the first wrap (`RESERVED_PIDS` in
/// kernel/pid.c).
pub const RESERVED: u64 = 300;

/// Counts the task ids that can still be assigned.
#[derive(Clone, Debug)]
pub struct FreePids {
    first: u64,
    max: u64,
    used: u64,
}

impl FreePids {
    /// `last` is the id assigned last, `max` the sysctl kernel.pid_max: the
    /// lowest id that is never assigned.
    pub fn new(last: u64, max: u64) -> FreePids {
        // idr_get_cursor() is the last id plus one.
        let cursor = last.saturating_add(1);
        FreePids { first: cursor.min(RESERVED), max, used: 0 }
    }

    /// Records an id in use.
    pub fn mark_used(&mut self, id: u32) {
        self.used += u64::from((self.first..self.max).contains(&u64::from(id)));
    }

    /// The number of free ids.
    pub fn count(&self) -> u64 {
        self.max.saturating_sub(self.first).saturating_sub(self.used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free_pids(last: u64, max: u64, taken: impl IntoIterator<Item = u32>) -> u64 {
        let mut free = FreePids::new(last, max);
        taken.into_iter().for_each(|id| free.mark_used(id));
        free.count()
    }

    #[test]
    fn after_boot_ids_up_to_pid_max_are_free() {
        // Ids 1 to 40 have been assigned; the next one is 41.
        assert_eq!(free_pids(40, 32768, 1..=40), 32767 - 40);
    }

    #[test]
    fn an_id_above_the_last_counts_as_used() {
        assert_eq!(free_pids(40, 32768, [1, 2, 1000]), 32767 - 40 - 1);
    }

    #[test]
    fn after_id_300_lower_ids_are_not_free() {
        assert_eq!(free_pids(401, 32768, (1..=40).chain([400, 401])), 32768 - 300 - 2);
    }

    #[test]
    fn a_pid_max_below_the_ids_in_use_leaves_none() {
        assert_eq!(free_pids(400, 300, [1, 2]), 0);
    }
}
