//! What will happen, in the order in which it will.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// Entries ordered by time and, at the same time, by when they were put in.
///
/// The second rule is what makes a run repeat: a heap alone leaves equal times in any order.
#[derive(Debug)]
pub struct Queue<T> {
    heap: BinaryHeap<Reverse<Entry<T>>>,
    sequence: u64,
}

#[derive(Debug)]
struct Entry<T> {
    at: Duration,
    sequence: u64,
    value: T,
}

impl<T> Queue<T> {
    /// An empty queue.
    pub fn new() -> Self {
        Self {
            heap: BinaryHeap::new(),
            sequence: 0,
        }
    }

    /// Puts `value` in, to come out at `at`.
    pub fn push(&mut self, at: Duration, value: T) {
        self.sequence += 1;
        self.heap.push(Reverse(Entry {
            at,
            sequence: self.sequence,
            value,
        }));
    }

    /// When the next entry comes out.
    pub fn next_at(&self) -> Option<Duration> {
        self.heap.peek().map(|Reverse(entry)| entry.at)
    }

    /// Takes the next entry out, with its time.
    pub fn pop(&mut self) -> Option<(Duration, T)> {
        self.heap
            .pop()
            .map(|Reverse(entry)| (entry.at, entry.value))
    }

    /// How many entries wait.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Entry<T> {
    fn order(&self) -> (Duration, u64) {
        (self.at, self.sequence)
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_at_the_same_time_leaves_in_the_order_it_came() {
        let mut queue = Queue::new();
        let ms = Duration::from_millis;
        queue.push(ms(20), "late");
        for text in ["first", "second", "third"] {
            queue.push(ms(10), text);
        }

        let mut order = Vec::new();
        while let Some((at, text)) = queue.pop() {
            order.push((at.as_millis(), text));
        }
        assert_eq!(
            order,
            [(10, "first"), (10, "second"), (10, "third"), (20, "late")]
        );
        assert!(queue.is_empty());
    }
}
