"""`dtp tip` as people use it: locked, signed without a network, claimed by a relayer; against an embedded node."""

NAMED = "0x" + "7" * 64


def test_a_reward(call, home, monkeypatch, net):
    for name in ("owner", "relayer"):
        call("wallet", "new", name)
        call("wallet", "faucet", "--wallet", name)
    call("move", "publish", "escrow", "--immutable", "--wallet", "owner")
    key, other = home / "tip.pem", home / "other.pem"
    call("keygen", "-i", key)
    call("keygen", "-i", other)
    name = call("id", "-i", key)["id"]
    made = call("tip", "reward", name, "2SUI", "--relay-fee", "0.01SUI", "--wallet", "owner")
    assert (made["amount"], made["relay_fee"]) == (2 * 10**9, 10**7)
    with monkeypatch.context() as offline:
        offline.setenv("DTP_NETWORK", "http://127.0.0.1:1")
        claim = call("tip", "sign", made["lock"], "--to", NAMED, "-i", key)["claim"]
        forged = call("tip", "sign", made["lock"], "--to", NAMED, "-i", other)["claim"]
    assert call("tip", "claim", forged, "--wallet", "relayer", code=4)["code"] == "reward-claim-forged"
    assert call("tip", "claim", "dtpclaim1x", "--wallet", "relayer", code=4)["code"] == "reward-claim-forged"
    done = call("tip", "claim", claim, "--wallet", "relayer")
    assert (done["recipient"], done["amount"], done["relay_fee"]) == (NAMED, 2 * 10**9 - 10**7, 10**7)
    assert call("tip", "claim", claim, "--wallet", "relayer", code=4)["code"] == "reward-gone"
    assert call("tip", "reward", name, "0SUI", "--wallet", "owner", code=3)["code"] == "reward"
    second = call("tip", "reward", name, "1SUI", "--days", "1", "--wallet", "owner")
    net.advance_clock(2 * 86_400_000)
    assert call("tip", "refund", second["lock"], "--wallet", "relayer") == {"lock": second["lock"]}
