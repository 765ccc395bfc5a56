import SluiceCore

/// A world in which a pipeline machine meets everything that can go wrong, as a seed says.
///
/// One thread, no real time. A client writes, some of the stream arrives, the machine is asked, something
/// ends well or badly, time passes, a party dies. After every commit the database is compared with what
/// Redis held at the position.
public struct SimulatedWorld: ~Copyable {
    enum UnderWay {
        case commit(Batch)
        case read([ReadItem])
        case scan(database: Int, match: Bytes)
        case sweep(table: Int, after: RowIdentity?, limit: Int)
        case causes
        case retry(Checkpoint)
    }

    /// What went wrong, as sentences; empty when all promises were kept.
    public internal(set) var failures: [String] = []
    /// How often what happened, for a test to see that it did.
    public private(set) var events: [String: Int] = [:]
    let seed: UInt64
    let mappings = ModelTraffic.mappings
    private let faultRarity: Int
    private let isLinkSlow: Bool
    private let isCalm: Bool
    var random: SplitMix64
    var redis = ModelRedis()
    private var traffic = ModelTraffic()
    var database: ModelDatabase
    var machine: PipelineMachine
    var underWay: [UnderWay] = []
    var zombies: [Batch] = []
    var isLinkUp = false
    var now = Duration.zero
    private var snapshots: [Position: ModelRedis.Keyspace] = [:]

    /// Creates a world.
    ///
    /// - Parameter isCalm: Whether the machine hears of all that happens, from an empty Redis on, so that
    ///   it must know why each key went.
    public init(seed: UInt64, isCalm: Bool = false) {
        self.seed = seed
        self.isCalm = isCalm
        random = SplitMix64(seed: seed)
        // Some worlds are calm enough for a baseline to end, others hardly let it begin.
        faultRarity = [1, 4, 16, 40][random.pick(0..<4)]
        // A slow link leaves the stream far behind what is read, scanned and looked up.
        isLinkSlow = random.oneIn(3)
        database = ModelDatabase(mappings: mappings)
        machine = PipelineMachine(
            mappings: mappings, policy: PipelinePolicy.simulated(&random), stored: database.open(),
            seed: seed,
        )
        machine.learn(ModelTraffic.descriptions(saysTypes: seed % 3 > 0))
        if isCalm {
            connect()
            return
        }
        for _ in 0..<random.pick(0..<20) { traffic.run(on: &redis, random: &random) }
    }

    /// Lives for some steps, then lets everything settle and compares once more.
    public mutating func live(steps: Int) {
        for _ in 0..<steps where failures.isEmpty { step(faults: !isCalm) }
        settle()
    }

    mutating func note(_ event: String) {
        events[event, default: 0] += 1
    }

    private mutating func step(faults: Bool) {
        now += .milliseconds(random.pick(0..<3))
        // Who compares does not leave the stream held for long.
        if machine.isStopWanted, random.oneIn(8) { return hold() }
        switch random.pick(0..<100) {
        case 0..<25: traffic.run(on: &redis, random: &random)
        case 25..<50:
            if isLinkSlow, !random.oneIn(3) { return ask() }
            deliver(random.pick(1..<(isLinkSlow ? 4 : 8)))
        case 50..<75: ask()
        case 75..<92: end(isGood: !faults || !random.oneIn(3 + faultRarity))
        case 92..<94: now += .milliseconds(random.pick(1..<40))
        case 95: repair()
        case 94: retry()
        case 96: hold()
        default: if faults, random.oneIn(faultRarity) { fail() }
        }
    }

    // MARK: The machine

    mutating func deliver(_ count: Int) {
        if !isLinkUp { return connect() }
        var delivered = 0
        while delivered < count, !machine.isHolding {
            guard let command = redis.commands(after: machine.streamOffset).first else { break }
            guard receive(command) else { break }
            delivered += 1
        }
        machine.chunkReceived(now: now)
    }

    private mutating func receive(_ command: ModelRedis.Propagated) -> Bool {
        machine.receive(
            CommandText(command.arguments), length: Int(command.end - command.start))
    }

    private mutating func connect() {
        isLinkUp = true
        guard let position = machine.processed, redis.snapshots[position.offset] != nil,
            !random.oneIn(6), isPart(position)
        else {
            note("resynchronisation")
            if database.noteUnread(redis) { isCertain = false }
            machine.linkResynchronised(redis.resynchronise())
            return listen()
        }
        note("continuation")
        machine.linkContinued(history: redis.history)
        listen()
    }

    // Key events are heard from now on; what went before, while the stream is behind, is in doubt.
    private mutating func listen() {
        if redis.offset > machine.streamOffset || !isCalm && random.oneIn(8) {
            isCertain = false
        }
        machine.causesHeard(from: redis.offset, history: redis.history)
    }
    /// Whether the cause of each removal was known.
    var isCertain = true

    // A history is continued only by itself, or by one that began with it, up to where they part:
    // beyond that point the same offsets mean other commands.
    private func isPart(_ position: Position) -> Bool {
        position.history == redis.history
            || position.offset <= shared[redis.history]?[position.history] ?? .min
    }
    /// Up to which offset a history is the same as each that it began with.
    var shared: [ReplicationID: [ReplicationID: Int64]] = [:]

    mutating func ask() {
        // What went before a baseline came to it, nobody can have.
        if machine.isBaselineRunning, machine.counters.vanished > 0 { isCertain = false }
        if machine.isMemoryFull { note("full buffer") }
        switch machine.next(now: now) {
        case .commit(let batch): underWay.append(.commit(batch.ordered()))
        case .read(let items): underWay.append(.read(items))
        case .scan(let database, _, let match, _):
            underWay.append(.scan(database: database, match: match))
        case .sweep(let table, let after, let limit):
            underWay.append(.sweep(table: table, after: after, limit: limit))
        case .askCauses: underWay.append(.causes)
        case .wait, .finish: break
        }
    }

    mutating func end(isGood: Bool) {
        guard !underWay.isEmpty else { return }
        let task = underWay.remove(at: random.pick(0..<underWay.count))
        switch task {
        case .commit(let batch): commit(batch, isGood: isGood)
        case .read(let items):
            guard isGood, isLinkUp else {
                return machine.readFailed(now: now, pause: .milliseconds(5))
            }
            note("read")
            redis.noteReads(items, hasStrays: !database.checkpoint.strays.isEmpty)
            let results = items.map { redis.read($0, database: $0.database) }
            machine.readFinished(
                results, offset: redis.offset, until: redis.offset, history: redis.history, now: now
            )
        case .scan(let database, let match):
            guard isGood else { return machine.scanFailed(now: now, pause: .milliseconds(5)) }
            let prefix = match.dropLast()
            let keys = redis.databases[database].values.keys.sorted().map { Array($0.utf8) }
            machine.scanFinished(
                keys.filter { $0.starts(with: prefix) }, cursor: [0x30], offset: redis.offset,
                history: redis.history, now: now)
        case .sweep(let table, let after, let limit):
            guard isGood else { return machine.sweepFailed(now: now, pause: .milliseconds(5)) }
            sweep(table, after, limit)
        case .retry(let checkpoint):
            let isApplied = isGood || random.oneIn(2)
            guard isApplied else { return machine.endRetry(nil) }
            do throws(SinkError) {
                let outcome = try database.retry(at: checkpoint)
                if !outcome.written.isEmpty { note("retry") }
                check()
                // The answer may be lost.
                machine.endRetry(isGood ? outcome : nil)
            } catch { crash() }
        case .causes:
            guard isGood, isLinkUp else {
                isCertain = false
                return machine.causesLost()
            }
            note("causes")
            machine.answerCauses(redis, events: redis.events)
        }
    }

    // The table is mended or spoilt, or dead letters are tried again.
    private mutating func retry() {
        if random.oneIn(3) {
            database.refuses.toggle()
        } else if let checkpoint = machine.beginRetry() {
            underWay.append(.retry(checkpoint))
        }
    }

    // A person has rows without a key deleted, or rows looked at again.
    private mutating func repair() {
        if random.oneIn(2) {
            let limits = Dictionary(uniqueKeysWithValues: mappings.map { ($0.name, Int.max) })
            if machine.reconcile(
                limits: random.oneIn(8) ? nil : limits, includesDoubtful: !isCalm && random.oneIn(2)
            ) == nil {
                note("reconciliation")
            }
        } else {
            // Most often counters, and of those the ones that outlived their keys: they must stay.
            let table = random.oneIn(2) ? 0 : random.pick(0..<mappings.count)
            let stored = database.tables[table].keys.sorted {
                $0.key.lexicographicallyPrecedes($1.key)
            }
            let kept = stored.filter { database.kept(table, $0) == .gone }
            let rows = (kept.isEmpty ? stored : kept).shuffled(using: &random).prefix(3)
            if !kept.isEmpty { note("kept rows looked at") }
            machine.lookAgain(Array(rows), table: mappings[table].name)
        }
    }

    private mutating func sweep(_ table: Int, _ after: RowIdentity?, _ limit: Int) {
        let found = database.sweep(table, after, limit, redis)
        machine.sweepFinished(
            rows: found.rows.count, missing: found.missing, outlived: found.outlived,
            last: found.rows.count == limit ? found.rows.last : nil, offset: redis.offset,
            history: redis.history, now: now)
    }

    private mutating func commit(_ batch: Batch, isGood: Bool) {
        let isApplied = isGood || random.oneIn(2)
        var refused: [DeadLetter] = []
        if isApplied {
            do throws(SinkError) { refused = try database.apply(batch) } catch { return crash() }
            check()
        }
        if isGood {
            if !refused.isEmpty { note("refusal") }
            machine.committed(BatchOutcome(refused: refused), now: now)
        } else {
            note("unknown commit")
            underWay.append(.commit(batch))
        }
    }

    // MARK: Comparing at an exact offset

    /// Where somebody compares, once the stream goes on to there.
    private var comparedAt: Int64?

    // The stream is held, goes on to where Redis is by then, and the database is what Redis was there.
    private mutating func hold() {
        guard machine.isStopWanted else {
            comparedAt = nil
            if isLinkUp { _ = machine.hold() }
            return
        }
        guard let offset = comparedAt else {
            guard machine.advance(to: redis.offset) else { return }
            comparedAt = redis.offset
            return
        }
        guard machine.hasStopped else {
            if random.oneIn(30) { machine.release() }
            return
        }
        if let position = machine.processed, isPart(position), let keys = redis.snapshots[offset] {
            note("comparison at an offset")
            compare(keys, "held at \(offset)")
        }
        machine.release()
    }

    // MARK: Promises

    /// After a commit: the rows of the keys that exist equal Redis at the committed position.
    mutating func check() {
        let checkpoint = database.checkpoint
        guard checkpoint.isBaselineDone, let position = checkpoint.position else { return }
        guard isPart(position), let keys = redis.snapshots[position.offset] else { return }
        note("comparison")
        compare(keys, "at \(position)")
    }

    private mutating func compare(_ keys: [ModelRedis.Keyspace], _ place: String) {
        if isCertain { note(isLinkSlow ? "certain comparison far behind" : "certain comparison") }
        let found = ModelComparison(mappings: mappings).differences(
            database, keys, loose: database.loose, strays: database.checkpoint.strays,
            isCertain: isCertain, isFar: true,
            // Of a counter that was in doubt, or not read in time, nobody knows what it has.
            hasVanished: machine.counters.vanished > 0 || machine.counters.doubtful > 0,
        )
        failures += found.map { "seed \(seed), \(place): \($0)" }
    }

    private mutating func settle() {
        database.refuses = false
        machine.release()
        for _ in 0..<20_000 where failures.isEmpty {
            if random.oneIn(10), database.hasRefused, let checkpoint = machine.beginRetry() {
                underWay.append(.retry(checkpoint))
            }
            deliver(8)
            ask()
            end(isGood: true)
            now += .milliseconds(2)
            if machine.isSettled, !machine.isBaselineRunning, isLinkUp, !machine.isHolding,
                machine.streamOffset == redis.offset, database.loose.isEmpty, underWay.isEmpty,
                machine.isReconciled,
                !database.hasRefused
            {
                compare(redis.databases, "in the end")
                if machine.acknowledgement() != redis.offset {
                    failures.append("seed \(seed): the end is not acknowledged")
                }
                return
            }
        }
        if failures.isEmpty { failures.append("seed \(seed): never settled: \(machine.situation)") }
    }
}
