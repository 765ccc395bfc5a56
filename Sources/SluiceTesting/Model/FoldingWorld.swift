import SluiceCore

/// A world without faults, for what folding leaves.
public enum FoldingWorld {
    /// Runs random commands through a machine.
    ///
    /// - Parameters:
    ///   - seed: What the commands are.
    ///   - isCutEachTime: Whether each command is committed alone; else all are at the end.
    /// - Returns: How the database differs from Redis in the end, and how many commits there were.
    public static func run(
        seed: UInt64, isCutEachTime: Bool,
    ) -> (differences: [String], commits: Int64) {
        var random = SplitMix64(seed: seed)
        var redis = ModelRedis()
        var traffic = ModelTraffic()
        var database = ModelDatabase(mappings: ModelTraffic.mappings)
        var machine = PipelineMachine(
            mappings: ModelTraffic.mappings, policy: PipelinePolicy(),
            stored: database.open(), seed: seed,
        )
        machine.learn(ModelTraffic.descriptions(saysTypes: seed % 3 > 0))
        machine.linkResynchronised(
            Position(history: redis.history, offset: redis.offset, database: 0))
        settle(&machine, &database, &redis)
        machine.causesHeard(from: redis.offset, history: redis.history)
        for _ in 0..<80 {
            traffic.run(on: &redis, random: &random)
            receive(redis, &machine)
            if isCutEachTime { settle(&machine, &database, &redis) }
        }
        settle(&machine, &database, &redis)
        let differences = ModelComparison(mappings: ModelTraffic.mappings).differences(
            database, redis.databases, loose: database.loose,
            strays: database.checkpoint.strays, isCertain: true,
            hasVanished: machine.counters.vanished > 0,
        )
        return (differences, database.checkpoint.sequence)
    }

    private static func receive(_ redis: ModelRedis, _ machine: inout PipelineMachine) {
        while let command = redis.commands(after: machine.streamOffset).first {
            let isTaken = machine.receive(
                CommandText(command.arguments), length: Int(command.end - command.start))
            guard !isTaken, case .askCauses = machine.next(now: .zero) else { continue }
            machine.answerCauses(redis, events: redis.events)
        }
        machine.chunkReceived(now: .zero)
    }

    private static func settle(
        _ machine: inout PipelineMachine, _ database: inout ModelDatabase,
        _ redis: inout ModelRedis,
    ) {
        var now = Duration.zero
        for _ in 0..<1_000 {
            now += .seconds(2)
            machine.requestCut()
            switch machine.next(now: now) {
            case .commit(let batch):
                do throws(SinkError) { try database.apply(batch.ordered()) } catch {
                    preconditionFailure("\(error)")
                }
                machine.committed(BatchOutcome(), now: now)
            case .read(let items):
                redis.noteReads(items, hasStrays: !database.checkpoint.strays.isEmpty)
                let results = items.map { redis.read($0, database: $0.database) }
                machine.readFinished(
                    results, offset: redis.offset, until: redis.offset, history: redis.history,
                    now: now)
            case .scan:
                machine.scanFinished(
                    [], cursor: [0x30], offset: redis.offset, history: redis.history, now: now)
            case .sweep:
                machine.sweepFinished(
                    rows: 0, missing: [], outlived: [:], last: nil, offset: redis.offset,
                    history: redis.history,
                    now: now)
            case .askCauses: machine.answerCauses(redis, events: redis.events)
            case .wait, .finish: if machine.isSettled, !machine.isBaselineRunning { return }
            }
        }
        preconditionFailure("never settled")
    }
}

extension PipelineMachine {
    /// Says why keys went, from the events since the stream's present place.
    mutating func answerCauses(
        _ redis: ModelRedis, events: [(offset: Int64, event: KeyEvent)], isReliable: Bool = true,
    ) {
        let from = streamOffset
        causesAnswered(
            events.filter { $0.offset > from }.map(\.event), offset: redis.offset,
            history: redis.history, isReliable: isReliable)
        guard let until = lookAheadUntil else { return }
        for command in redis.commands(after: from) where command.end <= until {
            let text = CommandText(command.arguments)
            lookAhead(text.bytes.span, arguments: text.arguments)
        }
        lookedAhead()
    }
}
