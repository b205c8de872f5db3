//! What holds for any bytes at all.

use proptest::prelude::*;
use relay_core::{ThirdParty, Transport, server_name_len_max};
use relay_stun::client::Request;

use crate::world::{PEER, Phone, World};

/// What every datagram carries besides its payload: IPv4 and UDP headers, in bytes.
const IP_AND_UDP_LEN: usize = 28;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_stranger_costs_nothing_and_is_no_amplifier(
        mut packet in prop::collection::vec(any::<u8>(), 0..200),
        well_formed: bool,
    ) {
        let mut world = World::new();
        // The longest answers there are.
        let name = "n".repeat(server_name_len_max("offhook"));
        let third_party = ThirdParty::new(&name);
        let credentials = world.credentials.clone().with_third_party(third_party);
        world.relay.set_credentials(credentials);
        let stranger = Phone::new("", "", 1000, Transport::Udp);
        if well_formed && packet.len() >= 20 {
            // A header that passes, so that the attributes are looked at.
            packet.truncate(packet.len() / 4 * 4);
            let len = u16::try_from(packet.len() - 20).unwrap().to_be_bytes();
            let method = [1, 3, 4, 8, 9, 10, 11][usize::from(packet[1] % 7)];
            packet[..2].copy_from_slice(&[0, method]);
            packet[2..4].copy_from_slice(&len);
            packet[4..8].copy_from_slice(&[0x21, 0x12, 0xA4, 0x42]);
        }

        prop_assert_eq!(world.client_sends(&stranger, &packet), None);
        prop_assert_eq!(world.relay.stats().allocations, 0);
        prop_assert!(world.relay.poll_timeout().is_none());
        prop_assert!(world.sent.len() <= 1);
        for (to, answer) in &world.sent {
            prop_assert_eq!(*to, stranger.at);
            let bound = 3 * (packet.len() + IP_AND_UDP_LEN);
            prop_assert!(answer.len() + IP_AND_UDP_LEN <= bound, "{} for {}", answer.len(), packet.len());
        }
    }

    #[test]
    fn a_changed_request_of_a_known_client_changes_nothing(
        changes in prop::collection::vec((any::<prop::sample::Index>(), 1..=255_u8), 1..4),
    ) {
        let mut world = World::new();
        let mut alice = world.allocated("alice", 1000);
        world.permit(&mut alice, PEER).unwrap();
        let mut packet = alice.conversation.request(Request::Refresh { lifetime: 0 });
        let original = packet.clone();
        for (at, change) in changes {
            let at = at.index(packet.len());
            packet[at] ^= change;
        }
        prop_assume!(packet != original);

        world.client_sends(&alice, &packet);
        prop_assert_eq!(world.relay.stats().allocations, 1);
        prop_assert!(world.peer_sends(PEER, &alice, "still here").is_some());
    }
}
