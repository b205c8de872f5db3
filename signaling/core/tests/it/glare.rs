//! Both sides ring each other.

use crate::harness::TestSignaling;

#[test]
fn crossing_invites_become_the_call_with_the_lower_id() {
    for alice_is_low in [true, false] {
        let mut t = TestSignaling::people(&["alice", "bob", "bob2"]);
        let (low, high) = (t.new_call(), t.new_call());
        let (of_alice, of_bob) = if alice_is_low {
            (&low, &high)
        } else {
            (&high, &low)
        };

        t.invite_as("alice", "bob", of_alice);
        let answer = t.invite_as("bob", "alice", of_bob);
        assert_eq!(
            answer["phase"],
            if alice_is_low { "ended" } else { "active" }
        );

        for name in ["alice", "bob"] {
            let state = t.seen(name, &low);
            assert_eq!(state["phase"], "active", "{name}");
            assert_eq!(
                state["caller"]["user"],
                if alice_is_low { "alice" } else { "bob" }
            );
            assert_eq!(
                state["caller"]["device"],
                t.device(if alice_is_low { "alice" } else { "bob" }).id
            );
            assert_eq!(
                state["callee"]["device"],
                t.device(if alice_is_low { "bob" } else { "alice" }).id
            );
            assert_eq!(t.end(name, &high), "merged -");
            assert_eq!(t.seen(name, &high)["end"]["into"], low);
        }
        assert_ne!(
            t.seen("bob2", of_alice)["phase"],
            "ringing",
            "bob's other Device stops ringing"
        );
        assert_eq!(t.ended_records().len(), 1);
    }
}

#[test]
fn an_invite_that_crosses_is_not_busy() {
    let mut t = TestSignaling::people(&["alice", "bob", "carol"]);
    t.talk("carol", "alice");
    let low = t.invite("alice", "bob");
    t.invite("bob", "alice");

    assert_eq!(t.seen("bob", &low)["phase"], "active");
}
