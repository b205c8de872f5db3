//! What is asked of a client over RTCP: the library keeps feedback to itself unless something in its chain says who it is for.

use std::collections::VecDeque;
use std::time::Instant;

use rtc::interceptor::{Attribute, Interceptor, Packet, StreamInfo, TaggedPacket};
use rtc::rtcp::payload_feedbacks::full_intra_request::FullIntraRequest;
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::sansio::Protocol;
use rtc::shared::error::{Error, Result};

/// Hands requests for key frames on to the client, and nothing else of the compound they came in: the library looks for the Track
/// by what comes first. To be the last in the chain, for the others have to have seen it all.
#[derive(Default)]
pub(super) struct PictureRequests {
    reads: VecDeque<TaggedPacket>,
    writes: VecDeque<TaggedPacket>,
}

impl Protocol<TaggedPacket, TaggedPacket, ()> for PictureRequests {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = Error;
    type Time = Instant;

    fn handle_read(&mut self, mut packet: TaggedPacket) -> Result<()> {
        if let Packet::Rtcp(compound) = &mut packet.message.packet {
            compound.retain(|one| {
                let one = one.as_any();
                one.is::<PictureLossIndication>() || one.is::<FullIntraRequest>()
            });
            if !compound.is_empty() {
                packet.message.add(Attribute::DeliverToApplication);
            }
        }
        self.reads.push_back(packet);
        Ok(())
    }

    fn poll_read(&mut self) -> Option<TaggedPacket> {
        self.reads.pop_front()
    }

    fn handle_write(&mut self, packet: TaggedPacket) -> Result<()> {
        self.writes.push_back(packet);
        Ok(())
    }

    fn poll_write(&mut self) -> Option<TaggedPacket> {
        self.writes.pop_front()
    }

    fn handle_event(&mut self, (): ()) -> Result<()> {
        Ok(())
    }

    fn poll_event(&mut self) -> Option<()> {
        None
    }

    fn handle_timeout(&mut self, _: Instant) -> Result<()> {
        Ok(())
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        None
    }

    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Interceptor for PictureRequests {
    fn bind_local_stream(&mut self, _: &StreamInfo) {}
    fn unbind_local_stream(&mut self, _: &StreamInfo) {}
    fn bind_remote_stream(&mut self, _: &StreamInfo) {}
    fn unbind_remote_stream(&mut self, _: &StreamInfo) {}
}

#[cfg(test)]
mod tests {
    use rtc::interceptor::AttributedPacket;
    use rtc::rtcp;
    use rtc::rtcp::receiver_report::ReceiverReport;
    use rtc::shared::TransportContext;

    use super::*;

    fn read(requests: &mut PictureRequests, compound: Vec<Box<dyn rtcp::Packet>>) -> TaggedPacket {
        let packet = TaggedPacket {
            now: Instant::now(),
            transport: TransportContext::default(),
            message: AttributedPacket::new(Packet::Rtcp(compound)),
        };
        requests.handle_read(packet).unwrap();
        requests.poll_read().unwrap()
    }

    #[test]
    fn requests_are_for_the_client_and_reports_are_not() {
        let mut requests = PictureRequests::default();
        let is_delivered =
            |packet: &TaggedPacket| packet.message.has(&Attribute::DeliverToApplication);

        let report = || Box::new(ReceiverReport::default());
        assert!(!is_delivered(&read(&mut requests, vec![report()])));
        let request = PictureLossIndication {
            sender_ssrc: 1,
            media_ssrc: 2,
        };
        let packet = read(&mut requests, vec![report(), Box::new(request)]);
        assert!(is_delivered(&packet));
        let Packet::Rtcp(compound) = packet.message.packet else {
            panic!("it is RTCP")
        };
        assert_eq!(
            compound.len(),
            1,
            "the library looks for the first one's Track"
        );
    }
}
