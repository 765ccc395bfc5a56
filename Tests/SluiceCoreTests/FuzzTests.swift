import RESPWire
import SluiceConfiguration
import SluiceCore
import SluiceTesting
import Testing

/// Whatever comes in is taken or refused, and never ends the process; `make fuzz` for a minute each.
@Suite("Fuzz")
struct FuzzTests {
    private static func bytes(_ texts: String...) -> [[UInt8]] { texts.map { Array($0.utf8) } }

    @Test("the replication stream")
    func stream() {
        print("seed \(Fuzz.seed)")
        let examples = Self.bytes(
            "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nvalue\r\n*1\r\n$4\r\nPING\r\n", "\n\n*0\r\n",
            "*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n*2\r\n$4\r\nINCR\r\n$3\r\nc:a\r\n")
        let count = Fuzz.run(examples) { bytes, random in
            var decoder = CommandDecoder(argumentBytesMax: 100)
            var rest = bytes
            while !rest.isEmpty, let step = try? decoder.next(rest.span) {
                switch step {
                case .command(let length):
                    for range in decoder.arguments { #expect(range.upperBound <= rest.count) }
                    rest.removeFirst(length)
                case .skip(let offset, let count):
                    rest.removeSubrange(offset..<min(rest.count, offset + count))
                    if offset + count > rest.count { return }
                case .incomplete: return
                }
            }
        }
        #expect(count > 100)
    }

    @Test("replies")
    func replies() {
        let examples = Self.bytes(
            "*2\r\n:1\r\n*1\r\n$0\r\n\r\n", "%1\r\n+a\r\n:1\r\n", ">3\r\n+a\r\n,1.5\r\n#t\r\n",
            "-ERR x\r\n", "$-1\r\n", "_\r\n", "=7\r\ntxt:abc\r\n", "(123456789012345678901\r\n")
        let count = Fuzz.run(examples) { bytes, _ in
            if let reply = try? RESPDecoder.decode(bytes.span) {
                #expect(reply.length <= bytes.count)
            }
        }
        #expect(count > 100)
    }

    @Test("configurations")
    func configurations() {
        let examples = Self.bytes(
            """
            redis: { url: "redis://u:p@h:1/2", configure: false }
            database: { url: 'sqlite:x' }
            sync: { interval: 100ms, max_rows: 5 }
            buffer: { max_memory: 64MB }
            admin: { listen: '0.0.0.0:1', token: abcdefghijklmnopqrst }
            dead_letters: { retry_after: 1m }
            tables:
              a: { keys: "k:<a>:<b:integer>", hash: { n: integer }, rest: r, expires_at: e }
            """,
            """
            redis: { url: "redis+sentinel://h:1,i/name/3" }
            tables:
              s: { keys: "x<y>", stream: { id: i, fields: { a: real } }, database: 3 }
              z: { keys: "z<y>", sorted_set: { member: m, longitude: a, latitude: b } }
              j: { keys: "j<y>", json: { "$.a[0].b": 'c:integer' }, on_delete: { mark: m } }
              h: { keys: "h<y>", hyperloglog: { count: c, value: v }, on_flush: delete }
            """)
        let count = Fuzz.run(examples) { bytes, _ in
            let text = String(decoding: bytes, as: UTF8.self)
            _ = try? ConfigurationReader(environment: [:]).read(text, file: "fuzz")
        }
        #expect(count > 10)
    }

    private static func table(
        _ name: String, _ prefix: String, _ type: RedisType, _ columns: [Column] = [],
        fields: [String] = [], sources: [ValueSource] = [], member: String? = nil,
        rest: String? = nil, deadline: String? = nil,
    ) -> TableMapping {
        TableMapping(
            name: name,
            keys: KeyPattern(segments: [
                .literal(Array(prefix.utf8)), .placeholder(Column(name: "id", type: .text)),
            ]), type: type, fields: fields.map { Array($0.utf8) }, sources: sources,
            columns: columns, member: member.map { Column(name: $0, type: .text) }, rest: rest,
            deadline: deadline)
    }

    private static let tables = [
        table("counters", "c:", .string, [Column(name: "n", type: .integer)], deadline: "e"),
        table(
            "hashes", "h:", .hash,
            [Column(name: "n", type: .integer), Column(name: "t", type: .timestamp)],
            fields: ["n", "t"], rest: "r", deadline: "e"),
        table("scores", "z:", .sortedSet, [Column(name: "s", type: .real)], member: "m"),
        table(
            "places", "g:", .sortedSet,
            [Column(name: "lon", type: .real), Column(name: "lat", type: .real)],
            sources: [.longitude, .latitude], member: "m"),
        table("sets", "s:", .set, member: "m"),
        table("events", "x:", .stream, member: "i", rest: "f"),
        table(
            "sketches", "p:", .string, [Column(name: "c", type: .integer)], sources: [.count]),
        table(
            "documents", "j:", .string,
            [Column(name: "a", type: .json), Column(name: "b", type: .text)],
            sources: ["$", "$.a[1].b"].compactMap { JSONPath($0).map(ValueSource.path) }),
    ]

    @Test("commands and their values, up to the batch")
    func commands() {
        let sketch = "HYLL\0\0\0\0\0\0\0\0\0\0\0\u{1}"
        let examples = Self.bytes(
            "SET|c:a|5|PXAT|1900000000000", "INCRBY|c:a|-7", "HSET|h:a|n|1|t|2024-01-01|x|y",
            "HINCRBY|h:a|n|5", "ZADD|z:a|1.5|m|-inf|n", "ZINCRBY|z:a|2|m", "ZADD|g:a|3e15|p",
            "SADD|s:a|x|y", "XADD|x:a|5-1|f|v", "SET|j:a|{\"a\":[1,{\"b\":\"\\u00e9\"}]}",
            "SET|p:a|" + sketch, "DEL|c:a|h:a", "FLUSHALL", "HDEL|h:a|n", "RENAME|c:a|c:b",
            "COPY|c:a|c:b|DB|0", "MOVE|c:a|0", "SELECT|0", "SWAPDB|0|1", "PEXPIREAT|h:a|1",
            "MSET|c:a|1|c:b|2", "SORT|s:a|STORE|z:b", "PERSIST|c:a", "SREM|s:a|x", "ZREM|z:a|m")
        var machine = Self.machine()
        let count = Fuzz.run(examples) { bytes, random in
            if random.oneIn(500) { machine = Self.machine() }
            let words = bytes.split(separator: UInt8(ascii: "|"), omittingEmptySubsequences: false)
            var all: [UInt8] = []
            let ranges = words.map { word -> Range<Int> in
                all += word
                return all.count - word.count..<all.count
            }
            machine.receive(all.span, arguments: ranges, isOversized: false, length: 10)
            guard random.oneIn(10) else { return }
            machine.chunkReceived(now: .zero)
            machine.requestCut()
            if case .commit = machine.next(now: .seconds(10)) {
                machine.committed(BatchOutcome(), now: .seconds(10))
            }
        }
        #expect(count > 100)
    }

    private static func machine() -> PipelineMachine {
        let checkpoint = Checkpoint(
            epoch: 1, sequence: 1,
            position: Position(history: ReplicationID("h"), offset: 100, database: 0),
            isBaselineDone: true)
        var policy = PipelinePolicy()
        policy.closingMax = .zero
        var machine = PipelineMachine(
            mappings: tables, policy: policy, stored: StoredState(checkpoint: checkpoint),
            seed: 1)
        machine.linkContinued(history: nil)
        return machine
    }

    @Test("sketches count, or are none")
    func sketches() {
        let dense = Array("HYLL".utf8) + [0] + [UInt8](repeating: 0, count: 11)
        let sparse = Array("HYLL".utf8) + [1] + [UInt8](repeating: 0, count: 11)
        let registers = 16_384 * 6 / 8
        let examples = [
            dense + [UInt8](repeating: 0, count: registers),
            dense + [UInt8](repeating: 0xFF, count: registers),
            dense + [UInt8](repeating: 0x31, count: registers), sparse + [0x7F, 0xFF],
            sparse + [0x80, 0x7F, 0xFD],
        ]
        for example in examples { _ = HyperLogLog.count(example.span) }
        let count = Fuzz.run(examples) { bytes, _ in _ = HyperLogLog.count(bytes.span) }
        #expect(count > 10)
    }

    @Test("texts of values")
    func values() {
        let examples = Self.bytes(
            "2024-02-29T23:59:58.25Z", "1700000000123", "-1.5e300", "0010.50", "true",
            "{\"a\":[1,2,{\"b\":null}]}", "-9223372036854775808", "inf", "2024-01-01 01:00:00+01:00"
        )
        let types = ColumnType.allCases
        let path = JSONPath("$.a[2].b")
        let count = Fuzz.run(examples) { bytes, random in
            var vector = ColumnVector(types[random.pick(0..<types.count)])
            if (try? vector.append(text: bytes.span)) == nil { #expect(vector.count == 0) }
            if let time = Timestamp.microseconds(bytes.span) {
                _ = Timestamp.text(microseconds: time)
            }
            _ = path?.value(in: bytes.span, isJSON: random.oneIn(2))
        }
        #expect(count > 100)
    }
}
