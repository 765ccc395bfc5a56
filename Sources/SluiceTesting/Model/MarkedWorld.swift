import SluiceCore

/// A world in which a pipeline machine follows a server that only names the keys which changed: by marks
/// of a dirty set, or by tracking. What fails, when and how, a seed says.
///
/// In the end, without faults, every row must equal Redis, and no mark may be left. After each commit, no
/// row may have gone of which the key expired or was evicted.
public struct MarkedWorld: ~Copyable {
    private enum UnderWay {
        case commit(Batch)
        case read([ReadItem], [ReadResult]?)
        case scan(database: Int, match: Bytes)
        case sweep(table: Int, after: RowIdentity?, limit: Int)
        case causes
    }
    private typealias Name = ModelKeyName

    /// The sets that the server keeps for a source.
    private struct Sets {
        var dirty: [Name: Int64] = [:]
        var inFlight: [Int64: [Name: Int64]] = [:]
        var epoch: Int64 = 0
    }

    /// What went wrong, as sentences.
    public private(set) var failures: [String] = []
    /// How often what happened.
    public private(set) var events: [String: Int] = [:]
    private let seed: UInt64
    private let capture: Capture
    private let mappings = ModelTraffic.mappings
    // Some worlds are calm enough for a baseline to end, and for marks to be all that says what changed.
    private let calm: Int
    private var random: SplitMix64
    private var redis = ModelRedis()
    private var traffic = ModelTraffic()
    private var database: ModelDatabase
    private var machine: PipelineMachine
    private var underWay: [UnderWay] = []
    private var zombies: [Batch] = []
    private var now = Duration.zero
    private var time: Int64 = 1_000
    private var isLinkUp = false
    private var sets = Sets()
    private var setSnapshots: [Int64: Sets] = [:]
    private var ledger = MarkLedger()
    private var tracked: Set<Name> = []
    private var lastListened: Int64?
    private var eventsHeard = 0
    private var reliableSince: Int64?
    private var removals = RemovalHistory()
    private var unheard = UnheardRemovals()
    // A stream that another is renamed to has entries from before the last one that was read of it.
    private var renamedStreams: Set<String> = []

    /// Creates a world.
    public init(seed: UInt64) {
        self.seed = seed
        random = SplitMix64(seed: seed)
        capture = random.oneIn(3) ? .tracking : .dirtySet
        calm = [1, 5, 25][random.pick(0..<3)]
        database = ModelDatabase(mappings: mappings)
        machine = PipelineMachine(
            mappings: mappings, policy: PipelinePolicy.simulated(&random, memoryMax: 1 << 20),
            capture: capture,
            stored: database.open(), seed: seed)
        for _ in 0..<random.pick(0..<20) { write() }
    }

    /// Lives for some steps, then lets everything settle and compares.
    public mutating func live(steps: Int, faults: Bool) {
        for _ in 0..<steps where failures.isEmpty { step(faults: faults) }
        // Nothing is written after this: what was forgotten stays so.
        if faults, random.oneIn(2) { crash() }
        settle()
    }

    private mutating func note(_ event: String) { events[event, default: 0] += 1 }

    private mutating func step(faults: Bool) {
        now += .milliseconds(random.pick(0..<3))
        switch random.pick(0..<100) {
        case 0..<30: write()
        case 30..<45: round(isGood: !faults || !random.oneIn(12 * calm))
        case 45..<70: ask()
        case 70..<92: end(isGood: !faults || !random.oneIn(8 * calm))
        case 92..<95: now += .milliseconds(random.pick(1..<40))
        default: if faults, random.oneIn(6 * calm) { fail() }
        }
    }

    // MARK: The application

    private mutating func write() {
        time += Int64(random.pick(0..<2))
        let before = redis.databases
        let heard = redis.events.count
        let offset = redis.offset
        traffic.run(on: &redis, random: &random)
        for command in redis.commands(after: offset) where command.arguments[0] == "RENAME" {
            renamedStreams.insert(command.arguments[2])
        }
        var selfRemoved: Set<Name> = []
        for (_, event) in redis.events[heard...] where event.cause != .deleted {
            let key = String(decoding: event.key, as: UTF8.self)
            selfRemoved.insert(Name(key: key, database: event.database))
        }
        for number in before.indices {
            let (old, new) = (before[number], redis.databases[number])
            for key in Set(old.values.keys).union(new.values.keys)
            where old.values[key] != new.values[key] || old.deadlines[key] != new.deadlines[key] {
                let name = Name(key: key, database: number)
                let isGone = new.values[key] == nil
                tracked.insert(name)
                removals.note(
                    name, from: old.values[key]?.type, to: new.values[key]?.type,
                    isByItself: selfRemoved.contains(name))
                if isGone, selfRemoved.contains(name) { continue }
                sets.dirty[name] = min(sets.dirty[name] ?? time, time)
                unheard.mark(name)
            }
        }
        setSnapshots[redis.offset] = sets
    }

    // MARK: Rounds

    private mutating func round(isGood: Bool) {
        guard isLinkUp else { return connect() }
        guard !machine.isHolding else { return }
        let heard = hear()
        if capture == .tracking { return roundOfTracking(heard, isGood: isGood) }
        let epoch = database.checkpoint.epoch
        guard sets.epoch == machine.committed.epoch else { return cutLink() }
        for number in redis.databases.indices {
            let settled = machine.settledOffset().map {
                ledger.settled(upTo: $0, in: number, limit: .max)
            }
            for key in settled ?? [] {
                let name = Name(key: String(decoding: key, as: UTF8.self), database: number)
                sets.inFlight[sets.epoch]?[name] = nil
            }
            let oldest = sets.dirty.filter { $0.key.database == number }
                .sorted { ($0.value, $0.key.key) < ($1.value, $1.key.key) }
                .prefix(random.pick(1..<6))
            for (name, since) in oldest {
                let known = sets.inFlight[sets.epoch, default: [:]][name]
                sets.inFlight[sets.epoch, default: [:]][name] = min(known ?? since, since)
                sets.dirty[name] = nil
            }
            setSnapshots[redis.offset] = sets
            // The answer may be lost, with the connection.
            guard isGood, epoch == database.checkpoint.epoch else { return cutLink() }
            let marks = oldest.map {
                Mark(key: Array($0.key.key.utf8), database: number, since: $0.value)
            }
            let offset = machine.receive(marks, number == 0 ? heard : [], now: now)
            ledger.taken(marks, at: offset)
            note("round")
        }
        machine.requestCut()
    }

    private mutating func roundOfTracking(_ heard: [KeyEvent], isGood: Bool) {
        guard isGood else { return cutLink() }
        // In an order of its own, so that a seed replays.
        let names = tracked.sorted { ($0.key, $0.database) < ($1.key, $1.database) }
        let marks = names.flatMap { name in
            redis.databases.indices.map {
                Mark(key: Array(name.key.utf8), database: $0, since: lastListened)
            }
        }
        tracked = []
        lastListened = time
        machine.receive(marks, heard, now: now)
        note("round")
        machine.requestCut()
    }

    private mutating func hear() -> [KeyEvent] {
        let new = redis.events[min(eventsHeard, redis.events.count)...].map(\.event)
        eventsHeard = redis.events.count
        let events = new.filter { $0.cause != .deleted }
        unheard.hear(events)
        return events
    }

    private mutating func connect() {
        isLinkUp = true
        tracked = []
        lastListened = nil
        ledger = MarkLedger()
        unheard.begin(missed: hear())
        time += 1
        reliableSince = random.oneIn(6) ? nil : time
        if capture == .dirtySet {
            for (_, marks) in sets.inFlight {
                for (name, since) in marks {
                    sets.dirty[name] = min(sets.dirty[name] ?? since, since)
                }
            }
            sets.inFlight = [:]
            sets.epoch = machine.committed.epoch
            setSnapshots[redis.offset] = sets
        }
        note("connection")
        machine.marksBegin(history: redis.history, continues: capture == .dirtySet)
    }

    // MARK: The machine

    private mutating func ask() {
        switch machine.next(now: now) {
        case .commit(let batch): underWay.append(.commit(batch.ordered()))
        case .read(let items):
            // What it finds holds at some time between the question and the answer.
            let read = items.contains { $0.type == .stream } ? nil : results(items)
            underWay.append(.read(items, random.oneIn(2) ? read : nil))
        case .scan(let database, _, let match, _):
            underWay.append(.scan(database: database, match: match))
        case .sweep(let table, let after, let limit):
            underWay.append(.sweep(table: table, after: after, limit: limit))
        case .askCauses: underWay.append(.causes)
        case .wait, .finish: break
        }
    }

    private func results(_ items: [ReadItem]) -> [ReadResult] {
        items.map { redis.read($0, database: $0.database) }
    }

    private mutating func end(isGood: Bool) {
        guard !underWay.isEmpty else { return }
        let task = underWay.remove(at: random.pick(0..<underWay.count))
        let place = machine.processed
        switch task {
        case .commit(let batch): commit(batch, isGood: isGood)
        case .read(let items, let found):
            guard isGood, isLinkUp, let place else {
                return machine.readFailed(now: now, pause: .milliseconds(5))
            }
            note("read")
            let asked = machine.streamsToFind.isEmpty ? items : findStreams()
            machine.readFinished(
                found ?? results(asked), offset: place.offset, until: place.offset,
                history: place.history, now: now)
        case .scan(let database, let match):
            guard isGood, let place else {
                return machine.scanFailed(now: now, pause: .milliseconds(5))
            }
            let prefix = match.dropLast()
            let keys = redis.databases[database].values.keys.sorted().map { Array($0.utf8) }
            machine.scanFinished(
                keys.filter { $0.starts(with: prefix) }, cursor: [0x30], offset: place.offset,
                history: place.history, now: now)
        case .sweep(let table, let after, let limit):
            guard isGood, let place else {
                return machine.sweepFailed(now: now, pause: .milliseconds(5))
            }
            let found = database.sweep(table, after, limit, redis)
            machine.sweepFinished(
                rows: found.rows.count, missing: found.missing, outlived: found.outlived,
                last: found.rows.count == limit ? found.rows.last : nil, offset: place.offset,
                history: place.history, now: now)
        case .causes:
            guard isGood, isLinkUp else {
                reliableSince = nil
                return machine.causesAnswered([], reliableSince: nil)
            }
            note("causes")
            machine.causesAnswered(hear(), reliableSince: reliableSince)
        }
    }

    private mutating func findStreams() -> [ReadItem] {
        let last = machine.streamsToFind.map { table, key in
            database.tables[table].keys.filter { $0.key == key }.map(\.member)
                .max { Self.number($0) < Self.number($1) }
        }
        return machine.streamsFound(last)
    }

    private static func number(_ id: Bytes) -> Int {
        Int(String(decoding: id.prefix { $0 != 0x2D }, as: UTF8.self)) ?? 0
    }

    private mutating func commit(_ batch: Batch, isGood: Bool) {
        if isGood || random.oneIn(2) {
            let before = database.tables
            do throws(SinkError) { try database.apply(batch) } catch { return crash() }
            note(database.checkpoint.isBaselineDone ? "commit of marks" : "commit")
            check(before)
        }
        if isGood {
            machine.committed(BatchOutcome(), now: now)
            if machine.isSettled { unheard.settle() }
        } else {
            underWay.append(.commit(batch))
        }
    }

    /// Rows go only if the application removed their keys, ever.
    private mutating func check(_ before: [[RowIdentity: [ModelDatabase.Stored]]]) {
        for (table, mapping) in mappings.enumerated()
        where mapping.isOneRowPerKey && mapping.needsCause {
            for row in before[table].keys where database.tables[table][row] == nil {
                let key = String(decoding: row.key, as: UTF8.self)
                let name = Name(key: key, database: mapping.database)
                if removals.mustStay(name, mapping.type) {
                    failures.append(
                        "seed \(seed), \(capture): \(mapping.name) \(key) went by itself, and its row with it"
                    )
                }
            }
        }
    }

    // MARK: Faults

    private mutating func fail() {
        switch random.pick(0..<5) {
        case 0, 1: crash()
        case 2, 3: cutLink()
        default:
            note("restart of Redis")
            cutLink()
            let boundaries = redis.snapshots.keys.filter { setSnapshots[$0] != nil }.sorted()
            let chosen = boundaries.suffix(4).randomElement(using: &random)
            guard let chosen, let old = setSnapshots[chosen] else { return }
            redis.restart(from: chosen)
            sets = old
            setSnapshots = [redis.offset: sets]
            eventsHeard = redis.events.count
            // What it lost, nobody removed.
            removals.forget()
        }
    }

    private mutating func cutLink() {
        guard isLinkUp else { return }
        note("lost connection")
        isLinkUp = false
        underWay.removeAll { if case .causes = $0 { true } else { false } }
        machine.linkLost()
    }

    private mutating func crash() {
        note("crash")
        for task in underWay { if case .commit(let batch) = task { zombies.append(batch) } }
        underWay = []
        if random.oneIn(2) { landZombies() }
        machine = PipelineMachine(
            mappings: mappings, policy: PipelinePolicy.simulated(&random, memoryMax: 1 << 20),
            capture: capture,
            stored: database.open(), seed: seed &+ random.next())
        isLinkUp = false
        landZombies()
    }

    private mutating func landZombies() {
        for batch in zombies {
            let before = database.tables
            _ = try? database.apply(batch)
            check(before)
        }
        zombies = []
    }

    private mutating func settle() {
        for _ in 0..<20_000 where failures.isEmpty {
            round(isGood: true)
            ask()
            end(isGood: true)
            now += .milliseconds(2)
            let isQuiet = capture == .tracking ? tracked.isEmpty : sets.dirty.isEmpty
            guard machine.isSettled, !machine.isBaselineRunning, isLinkUp, isQuiet,
                !machine.isHolding, underWay.isEmpty, database.loose.isEmpty,
                sets.inFlight.values.allSatisfy(\.isEmpty) || capture == .tracking
            else { continue }
            let comparison = ModelComparison(mappings: mappings)
            failures += comparison.differences(
                database, redis.databases, loose: [], strays: database.checkpoint.strays,
                isCertain: false, hasVanished: true
            ).filter { difference in
                !renamedStreams.contains { difference.hasPrefix("events \($0) ") }
                    && !(capture == .dirtySet && unheard.explain(difference, mappings))
            }.map { "seed \(seed), \(capture): \($0)" }
            return
        }
        if failures.isEmpty { failures.append("seed \(seed), \(capture): never settled") }
    }
}
