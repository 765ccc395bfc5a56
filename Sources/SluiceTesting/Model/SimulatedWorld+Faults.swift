import SluiceCore

// What fails: Redis, the connection, Sluice.
extension SimulatedWorld {
    mutating func fail() {
        switch random.pick(0..<6) {
        case 0, 1: crash()
        case 2, 3: cutLink()
        case 4:
            note("failover")
            cutLink()
            let boundaries = redis.snapshots.keys.sorted().suffix(6)
            let old = redis.history
            redis.failOver(to: boundaries.randomElement(using: &random) ?? redis.offset)
            let offset = redis.offset
            shared[redis.history] = (shared[old] ?? [:]).mapValues { min($0, offset) }
            shared[redis.history]?[old] = offset
        default:
            guard random.oneIn(3) else { return }
            note("restart of Redis")
            cutLink()
            let boundaries = redis.snapshots.keys.sorted().suffix(4)
            redis.restart(from: boundaries.randomElement(using: &random) ?? redis.offset)
        }
    }

    private mutating func cutLink() {
        isLinkUp = false
        isCertain = false
        underWay.removeAll { if case .causes = $0 { true } else { false } }
        machine.linkLost()
    }

    // Redis is there or not, and the time that a stop has may end before all is committed.
    private mutating func stop() {
        note("stop")
        if random.oneIn(2) { cutLink() }
        machine.drain()
        for _ in 0..<random.pick(0..<60) {
            if isLinkUp { deliver(1) }
            ask()
            end(isGood: true)
            now += .milliseconds(2)
        }
    }

    /// Sluice is killed. What it had sent to the database may still arrive there.
    mutating func crash() {
        if random.oneIn(3) { stop() }
        note("crash")
        isCertain = false
        for task in underWay { if case .commit(let batch) = task { zombies.append(batch) } }
        underWay = []
        if random.oneIn(2) { landZombies() }
        machine = PipelineMachine(
            mappings: mappings, policy: PipelinePolicy.simulated(&random), stored: database.open(),
            seed: seed &+ random.next(),
        )
        machine.learn(ModelTraffic.descriptions(saysTypes: seed % 3 > 0))
        isLinkUp = false
        landZombies()
    }

    private mutating func landZombies() {
        for batch in zombies {
            let before = database.checkpoint
            _ = try? database.apply(batch)
            if database.checkpoint != before {
                note("late commit")
                if database.checkpoint.epoch != before.epoch { failures.append("a fenced commit") }
                check()
            }
        }
        zombies = []
    }
}
