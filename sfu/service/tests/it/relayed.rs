//! Clients of the relay in the SFU's process, whose datagrams pass rings in memory and no socket.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use model::room::Source;
use sfu_service::Drop;
use sockets::handover::{self, End, Label};

use crate::stage::Stage;

/// The first port of the relay; each of its threads has one client, at the next one.
const PORT: u16 = 50_000;

fn relayed(thread: usize) -> SocketAddr {
    ([198, 51, 100, 7], PORT + u16::try_from(thread).unwrap()).into()
}

/// A relay of so many threads beside the SFU; each has an Allocation.
fn connect(stage: &Stage, threads: usize) -> Vec<End> {
    let wakers = vec![Waker::noop().clone(); threads];
    let (ends, of_sfu) = handover::connect(&wakers, &stage.handle.wakers());
    let owner_of = move |address: SocketAddr| {
        let thread = usize::from(address.port().checked_sub(PORT)?);
        (address == relayed(thread) && thread < threads).then_some(thread)
    };
    let owner_of: handover::OwnerOf = Arc::new(owner_of);
    stage.handle.connect_relay(of_sfu, &owner_of);
    ends
}

/// Has `from` say and show something that `to` hears and sees.
fn talk(stage: &mut Stage, from: usize, to: usize) {
    let received = |stage: &mut Stage| {
        let client = &mut stage.clients[to];
        let slots = [client.audio_slots[0], client.video_slots[0]];
        slots.map(|slot| client.received_in(slot).len())
    };
    let before = received(stage);
    for round in 0..20_u8 {
        let client = &mut stage.clients[from];
        client.send(0, &[round; 100], round == 0, 960);
        client.send_video(1, round.into(), round == 0, 3, round);
        stage.rest(Duration::from_millis(5));
    }
    stage.run("heard and seen", |stage| {
        let [audio, video] = received(stage);
        audio >= before[0] + 20 && video >= before[1] + 60
    });
}

#[test]
fn two_clients_of_the_relay_hear_and_see_each_other_and_nothing_passes_a_socket() {
    let mut stage = Stage::new();
    let mut ends = connect(&stage, 2);
    let tracks = [Source::Microphone, Source::Camera];
    let alice = stage.join_as(&tracks, 1, 1, |client| {
        client.through(ends.remove(0), relayed(0));
    });
    let bob = stage.join_as(&tracks, 1, 1, |client| {
        client.through(ends.remove(0), relayed(1));
    });
    talk(&mut stage, alice, bob);
    talk(&mut stage, bob, alice);

    let figures = stage.figures();
    assert_eq!(figures.connected, 2);
    assert!(
        figures.relayed_in > 160 && figures.relayed_out > 160,
        "{figures:?}"
    );
    assert_eq!(
        (figures.packets_in, figures.packets_out),
        (figures.relayed_in, figures.relayed_out)
    );
    assert_eq!(figures.calls_out, 0);
    for cause in [Drop::RelayFull, Drop::RelayGone, Drop::Stranger] {
        assert_eq!(figures.dropped(cause), 0, "{cause:?}");
    }
}

#[test]
fn one_with_a_socket_and_one_of_the_relay_meet_and_one_may_become_the_other() {
    let mut stage = Stage::new();
    let mut ends = connect(&stage, 1);
    let tracks = [Source::Microphone, Source::Camera];
    let alice = stage.join(&tracks, 1, 1);
    let bob = stage.join(&tracks, 1, 1);
    talk(&mut stage, alice, bob);
    let before = stage.figures();
    assert_eq!((before.relayed_in, before.relayed_out), (0, 0));

    // His network lets no UDP through any more, but to the relay.
    stage.clients[bob].through(ends.remove(0), relayed(0));
    stage.restart(bob);
    stage.run("bob is back", |stage| stage.figures().relayed_out > 0);
    talk(&mut stage, alice, bob);
    talk(&mut stage, bob, alice);
    let after = stage.figures();
    assert!(after.relayed_in > 80 && after.relayed_out > 80, "{after:?}");
    assert!(after.calls_out > before.calls_out);
}

#[test]
fn strangers_of_the_relay_are_strangers_and_what_is_for_nobody_is_counted() {
    let mut stage = Stage::new();
    let mut ends = connect(&stage, 3);
    let [bob, mallory] = [0, 1].map(|_| ends.remove(0));
    let bob = stage.join_as(&[Source::Microphone, Source::Camera], 1, 1, |client| {
        client.through(bob, relayed(0));
    });
    let alice = stage.join(&[Source::Microphone, Source::Camera], 1, 1);
    let media = stage.handle.udp_addresses()[0];

    // What looks like media comes from an address nobody has proved to have, or is for a port that isn't there.
    let End { mut senders, .. } = mallory;
    let mut say = |media| {
        let label = Label {
            relayed: relayed(1),
            media,
            segment: 40,
        };
        senders.write(0, label, &[0x80; 80]).unwrap();
        senders.wake();
    };
    say(media);
    say(SocketAddr::new(media.ip(), 1));
    stage.run("counted", |stage| {
        stage.figures().dropped(Drop::Stranger) == 4
    });

    // A thread of the relay that has ended takes nothing, as an address that nobody has.
    talk(&mut stage, alice, bob);
    stage.clients[bob].lose_relay();
    for _ in 0..20 {
        stage.clients[alice].send(0, b"still there?", false, 960);
        stage.rest(Duration::from_millis(1));
    }
    stage.run("dropped", |stage| {
        stage.figures().dropped(Drop::RelayFull) >= 20
    });
}
