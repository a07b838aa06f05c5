//! Several blocks on their way at once, acknowledged in order.

use std::collections::BTreeMap;

use custody_evidence::LogReceipt;
use tokio::task::JoinSet;

use super::request::Answer;

/// Blocks sent and not yet answered, and answers that wait for earlier ones.
#[derive(Debug)]
pub(super) struct Window {
    max_in_flight: usize,
    /// First block that is not acknowledged.
    acked: u64,
    next: u64,
    sending: JoinSet<(u64, Answer)>,
    answered: BTreeMap<u64, Answer>,
    failed: bool,
    /// Acknowledged blocks whose receipts have not been judged yet, in order.
    receipts: Vec<Receipt>,
}

/// A block's number, and what the collector's log says of it.
pub(super) type Receipt = (u64, Option<Box<LogReceipt>>);

impl Window {
    /// Begins at block `from`.
    #[must_use]
    pub(super) fn new(from: u64, max_in_flight: usize) -> Self {
        Self {
            max_in_flight: max_in_flight.max(1),
            acked: from,
            next: from,
            sending: JoinSet::new(),
            answered: BTreeMap::new(),
            failed: false,
            receipts: Vec::new(),
        }
    }

    /// The next block to send, if there is room and nothing has failed.
    #[must_use]
    pub(super) fn wants(&self, durable_end: u64) -> Option<u64> {
        let room = !self.failed && self.sending.len() < self.max_in_flight;
        (room && self.next < durable_end).then_some(self.next)
    }

    /// A block goes out.
    pub(super) fn send(&mut self, post: impl Future<Output = Answer> + Send + 'static) {
        let seq = self.next;
        self.next += 1;
        self.sending.spawn(async move { (seq, post.await) });
    }

    /// Is nothing on its way?
    #[must_use]
    pub(super) fn is_idle(&self) -> bool {
        self.sending.is_empty()
    }

    /// Has something failed and is everything else answered?
    #[must_use]
    pub(super) fn is_broken(&self) -> bool {
        self.failed && self.sending.is_empty()
    }

    /// Waits for one answer. Cancel-safe: an answer is taken or not.
    pub(super) async fn answer(&mut self) {
        let (seq, answer) = match self.sending.join_next().await {
            Some(Ok(answered)) => answered,
            // A send that panicked has no answer; its number is sent again.
            Some(Err(_)) => {
                self.failed = true;
                return;
            }
            None => return,
        };
        self.failed |= !matches!(answer, Answer::Durable(_));
        self.answered.insert(seq, answer);
    }

    /// First block not acknowledged, after taking what has been answered in order.
    pub(super) fn advance(&mut self) -> u64 {
        while matches!(self.answered.get(&self.acked), Some(Answer::Durable(_))) {
            if let Some(Answer::Durable(receipt)) = self.answered.remove(&self.acked) {
                self.receipts.push((self.acked, receipt));
            }
            self.acked += 1;
        }
        self.acked
    }

    /// The receipts of what [`Self::advance`] took, in order.
    pub(super) fn take_receipts(&mut self) -> Vec<Receipt> {
        std::mem::take(&mut self.receipts)
    }

    /// The first block that is not acknowledged, and what was answered to it.
    #[must_use]
    pub(super) fn failure(mut self) -> (u64, Answer) {
        self.advance();
        let answer =
            self.answered.remove(&self.acked).unwrap_or(Answer::Failed("no answer".into()));
        (self.acked, answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_out_of_order_acknowledge_in_order_and_a_failure_stops_sending() {
        let mut window = Window::new(5, 3);
        let answers = [Answer::Durable(None), Answer::Expects(6), Answer::Durable(None)];
        for answer in answers {
            assert!(window.wants(100).is_some());
            window.send(async move { answer });
        }
        assert_eq!(window.wants(100), None);
        while !window.is_idle() {
            window.answer().await;
        }
        assert!(window.is_broken());
        assert_eq!(window.wants(100), None);
        assert_eq!(window.advance(), 6);
        assert_eq!(window.failure(), (6, Answer::Expects(6)));
    }
}
