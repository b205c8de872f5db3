//! Samples that wait: packets hold any length of sound, and the clock takes 20 ms at a time.

/// Samples in the order in which they came. Nothing allocates after it is made.
#[derive(Debug, Clone)]
pub(crate) struct Fifo {
    samples: Vec<i16>,
    start: usize,
    end: usize,
}

impl Fifo {
    /// One with room for `capacity` samples.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            samples: vec![0; capacity],
            start: 0,
            end: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    pub(crate) fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }

    /// Has `write` fill what room there is; it says how much of it.
    pub(crate) fn push_with(&mut self, write: impl FnOnce(&mut [i16]) -> usize) {
        self.samples.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.len());
        let room = &mut self.samples[self.end..];
        let most = room.len();
        self.end += write(room).min(most);
    }

    /// Takes as much as fills `out`; `false` and nothing where less is there.
    pub(crate) fn take(&mut self, out: &mut [i16]) -> bool {
        if self.len() < out.len() {
            return false;
        }
        let end = self.start + out.len();
        out.copy_from_slice(&self.samples[self.start..end]);
        self.start = end;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pushed_is_taken_in_order_and_what_has_no_room_is_not_pushed() {
        let mut fifo = Fifo::new(5);
        let push = |fifo: &mut Fifo, samples: &[i16]| {
            fifo.push_with(|room| {
                let len = samples.len().min(room.len());
                room[..len].copy_from_slice(&samples[..len]);
                samples.len()
            });
        };
        push(&mut fifo, &[1, 2, 3]);
        let mut out = [0; 2];
        assert!(fifo.take(&mut out));
        assert_eq!(out, [1, 2]);
        assert!(!fifo.take(&mut out));
        push(&mut fifo, &[4, 5, 6, 7, 8, 9]);
        assert_eq!(fifo.len(), 5);
        let mut all = [0; 5];
        assert!(fifo.take(&mut all));
        assert_eq!(all, [3, 4, 5, 6, 7]);
        push(&mut fifo, &[1]);
        fifo.clear();
        assert_eq!(fifo.len(), 0);
    }
}
