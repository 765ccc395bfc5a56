import SluiceCore

/// A world of counters and scores that expire, are refused, looked for, read ahead and interrupted, in which
/// it is known what each total must be in the end: all that was added since the application set or removed
/// it, however often its key expired meanwhile.
public struct TotalsWorld: ~Copyable {
    struct Name: Hashable {
        let table: Int
        let key: String
        let member: String
    }

    struct Command {
        let start: Int64
        let words: [String]
        let event: KeyEvent?

        var end: Int64 { start + TotalsWorld.length }
    }

    /// How long each command is taken to be, in bytes of the stream.
    static let length: Int64 = 10

    /// What differs from what it must be.
    public private(set) var failures: [String] = []
    /// How often each event happened.
    public private(set) var events: [String: Int] = [:]

    let mappings = ModelTraffic.mappings.filter { $0.name == "counters" || $0.name == "scores" }
    var random: SplitMix64
    var database: ModelDatabase
    var machine: PipelineMachine
    var now = Duration.zero
    private let seed: UInt64
    private let hasStops: Bool
    private var history = ReplicationID("h0")
    private var offset: Int64 = 100
    private var stream: [Command] = []
    private var redis: [String: [String: Int]] = [:]
    private var totals: [Name: Int] = [:]
    // Those of which the database was said to lack adds that no letter can have.
    private var unknown: Set<String> = []
    private var vanished = 0
    private var isLinked = true
    private var isAsked = false
    private var batch: Batch?
    private var items: [ReadItem]?

    /// Creates a world.
    public init(seed: UInt64) {
        self.seed = seed
        random = SplitMix64(seed: seed)
        hasStops = random.oneIn(2)
        database = ModelDatabase(mappings: mappings)
        database.refusedShare = Int64(random.pick(2..<5))
        machine = Self.machine(mappings, &database, seed)
        machine.linkResynchronised(Position(history: history, offset: offset, database: 0))
        settle()
        machine.causesHeard(from: offset, history: history)
    }

    private static func machine(
        _ mappings: [TableMapping], _ database: inout ModelDatabase, _ seed: UInt64,
    ) -> PipelineMachine {
        var machine = PipelineMachine(
            mappings: mappings, policy: PipelinePolicy(interval: .milliseconds(20)),
            stored: database.open(), seed: seed)
        machine.learn(ModelTraffic.descriptions(saysTypes: true))
        return machine
    }

    /// Lives, and compares every total in the end.
    public mutating func live() {
        for _ in 0..<random.pick(40..<160) { step() }
        database.refuses = false
        settle()
        compare()
    }

    private mutating func count(_ event: String) { events[event, default: 0] += 1 }

    // MARK: The application

    private mutating func emit(_ words: [String], _ event: KeyEvent? = nil) {
        stream.append(Command(start: offset, words: words, event: event))
        offset += Self.length
    }

    private mutating func write() {
        let key = ["c:a", "c:b", "z:a", "z:b"][random.pick(0..<4)]
        let isCounter = key.hasPrefix("c")
        let member = isCounter ? "" : ["m", "n"][random.pick(0..<2)]
        let table = mappings.firstIndex { $0.name == (isCounter ? "counters" : "scores") } ?? 0
        let name = Name(table: table, key: key, member: member)
        let isThere = redis[key]?[member] != nil
        switch random.pick(0..<20) {
        case 0..<9:
            let number = random.pick(1..<10)
            redis[key, default: [:]][member, default: 0] += number
            totals[name, default: 0] += number
            emit(isCounter ? ["INCRBY", key, "\(number)"] : ["ZINCRBY", key, "\(number)", member])
        case 9..<14 where redis[key] != nil:
            redis[key] = nil
            emit(["DEL", key], KeyEvent(key: Array(key.utf8), database: 0, cause: .expired))
        case 14 where redis[key] != nil:
            redis[key] = nil
            totals = totals.filter { $0.key.key != key }
            emit(["DEL", key])
        case 15:
            let number = random.pick(1..<200)
            redis[key, default: [:]][member] = number
            totals[name] = number
            emit(isCounter ? ["SET", key, "\(number)"] : ["ZADD", key, "\(number)", member])
        case 16 where isThere && !isCounter:
            redis[key]?[member] = nil
            if redis[key]?.isEmpty == true { redis[key] = nil }
            totals[name] = nil
            emit(["ZREM", key, member])
        case 17 where random.oneIn(2):
            redis = [:]
            emit(["FLUSHALL"])
        case 18 where isThere && isCounter:
            emit(["PEXPIREAT", key, "1700000000000"])
        case 19:
            let row = RowIdentity(key: Array(key.utf8), member: Array(member.utf8))
            guard database.tables[table][row] != nil else { return }
            machine.lookAgain([row], table: mappings[table].name)
        default: break
        }
    }

    // MARK: Sluice

    private mutating func step() {
        now += .milliseconds(random.pick(0..<3))
        switch random.pick(0..<95) {
        case 0..<22: write()
        case 22..<45: deliver(random.pick(1..<4))
        case 45..<68:
            if random.oneIn(2) { machine.requestCut() }
            ask()
        case 68..<86: answer(isGood: !random.oneIn(6))
        case 86..<88: now += .milliseconds(30)
        case 88: now += .seconds(5)
        case 89: database.refuses.toggle()
        case 90..<92: retry()
        case 92 where random.oneIn(2): crash()
        case 93 where hasStops && random.oneIn(2): stop()
        case 94 where random.oneIn(2): failOver()
        default: break
        }
    }

    private mutating func deliver(_ count: Int) {
        guard isLinked else { return connect() }
        for _ in 0..<count where !machine.isHolding {
            let place = machine.streamOffset
            guard let command = stream.first(where: { $0.start >= place }),
                machine.receive(CommandText(command.words), length: Int(Self.length))
            else { break }
        }
        machine.chunkReceived(now: now)
    }

    private mutating func connect() {
        isLinked = true
        machine.linkContinued(history: history)
        machine.causesHeard(from: machine.streamOffset, history: history)
    }

    private mutating func unlink() {
        isLinked = false
        isAsked = false
        machine.linkLost()
    }

    private mutating func ask() {
        switch machine.next(now: now) {
        case .commit(let next): batch = next.ordered()
        case .read(let next): items = next
        case .askCauses: isAsked = true
        case .scan:
            machine.scanFinished([], cursor: [0x30], offset: offset, history: history, now: now)
        case .sweep:
            machine.sweepFinished(
                rows: 0, missing: [], outlived: [:], last: nil, offset: offset, history: history,
                now: now)
        case .wait, .finish: break
        }
    }

    private mutating func answer(isGood: Bool) {
        if isAsked { return answerCauses() }
        if let asked = items, batch == nil || random.oneIn(2) {
            items = nil
            guard isGood, isLinked else {
                return machine.readFailed(now: now, pause: .milliseconds(5))
            }
            count("read")
            let redis = redis
            return machine.readFinished(
                asked.map { Self.read($0, redis) }, offset: offset, until: offset, history: history,
                now: now)
        }
        guard let next = batch else { return }
        batch = nil
        do throws(SinkError) {
            let refused = try database.apply(next)
            if !refused.isEmpty { count("refusal") }
            if database.loose.contains(where: { $0.lacksAdds }) { count("lack") }
            machine.committed(BatchOutcome(refused: refused), now: now)
        } catch {
            failures.append("\(error)")
        }
    }

    private mutating func answerCauses() {
        isAsked = false
        let from = machine.streamOffset
        let until = from + Self.length
        let asked = stream.filter { $0.start >= from && $0.end <= until }
        machine.causesAnswered(
            asked.compactMap(\.event), offset: until, history: history, isReliable: true)
        guard machine.lookAheadUntil != nil else { return }
        for command in asked {
            let text = CommandText(command.words)
            machine.lookAhead(text.bytes.span, arguments: text.arguments)
        }
        machine.lookedAhead()
    }

    private static func read(_ item: ReadItem, _ redis: [String: [String: Int]]) -> ReadResult {
        let values = redis[String(decoding: item.key, as: UTF8.self)]
        switch item.target {
        case .members:
            let members = (values ?? [:]).sorted { $0.key < $1.key }
            let parts = members.flatMap { [Array($0.key.utf8), Array("\($0.value)".utf8)] }
            let type = item.wantsType && values == nil ? Array("none".utf8) : nil
            return ReadResult(value: .page(parts, next: [0x30]), typeName: type)
        case .member(let member):
            return single(values?[String(decoding: member, as: UTF8.self)])
        default:
            return single(values?[""])
        }
    }

    private static func single(_ value: Int?) -> ReadResult {
        ReadResult(value: value.map { .single(Array("\($0)".utf8)) } ?? .missing)
    }

    // MARK: Faults

    private mutating func retry() {
        guard batch == nil, let checkpoint = machine.beginRetry() else { return }
        do throws(SinkError) {
            machine.endRetry(try database.retry(at: checkpoint))
        } catch {
            failures.append("\(error)")
        }
    }

    private mutating func crash() {
        count("crash")
        vanished += machine.counters.vanished
        if let next = batch, random.oneIn(2) { _ = try? database.apply(next) }
        batch = nil
        items = nil
        isAsked = false
        for row in database.loose where row.lacksAdds {
            unknown.insert(String(decoding: row.identity.key, as: UTF8.self))
        }
        machine = Self.machine(mappings, &database, seed)
        connect()
    }

    private mutating func stop() {
        count("stop")
        if random.oneIn(2) { unlink() }
        machine.drain()
        for _ in 0..<random.pick(1..<30) {
            if isLinked { deliver(1) }
            ask()
            answer(isGood: isLinked)
            now += .milliseconds(300)
        }
        crash()
    }

    private mutating func failOver() {
        count("failover")
        unlink()
        history = ReplicationID("h\(events["failover", default: 0])")
        if items != nil {
            items = nil
            machine.readFailed(now: now, pause: .milliseconds(5))
        }
        connect()
    }

    // MARK: The end

    private mutating func settle() {
        var quiet = 0
        var retries = 0
        for _ in 0..<3_000 {
            now += .milliseconds(50)
            deliver(50)
            machine.requestCut()
            ask()
            answer(isGood: true)
            let isQuiet =
                machine.isSettled && !machine.isBaselineRunning && batch == nil && items == nil
                && machine.streamOffset == offset && database.loose.isEmpty
            quiet = isQuiet ? quiet + 1 : 0
            guard quiet > 3 else { continue }
            if retries == 4 { return }
            retries += 1
            quiet = 0
            retry()
        }
        failures.append("never settled: \(machine.situation)")
    }

    private mutating func compare() {
        vanished += machine.counters.vanished
        // What was lost is said.
        guard vanished == 0 else { return count("vanished") }
        let rows = mappings.indices.flatMap { table in
            database.tables[table].keys.map {
                Name(
                    table: table, key: String(decoding: $0.key, as: UTF8.self),
                    member: String(decoding: $0.member, as: UTF8.self))
            }
        }
        for name in Set(rows).union(totals.keys) where !unknown.contains(name.key) {
            let found = total(name)
            guard found != totals[name] else { continue }
            let wanted = totals[name].map { "\($0)" } ?? "no row"
            failures.append(
                "\(name.key) \(name.member) is \(found.map { "\($0)" } ?? "nowhere"), not \(wanted)"
            )
        }
        count("comparison")
    }

    // What the row has, and its letter.
    private func total(_ name: Name) -> Int? {
        let row = RowIdentity(key: Array(name.key.utf8), member: Array(name.member.utf8))
        var total: Int? =
            switch database.tables[name.table][row]?.first {
            case .integer(let number)?: Int(number)
            case .real(let number)?: Int(number)
            default: nil
            }
        for letter in database.deadLetters
        where letter.identity == row && letter.table == mappings[name.table].name {
            let text = String(decoding: letter.value ?? [], as: UTF8.self)
            guard !text.hasPrefix("{\"expires_at"),
                let number = text.split(separator: "\"").compactMap({ Double($0) }).first
            else { continue }
            total = Int(number) + (letter.operation == .put ? 0 : total ?? 0)
        }
        return total
    }
}
