import Foundation
import SluiceTesting
import Testing

@Suite("Columns that take a part of a value", .serialized)
struct TypeTests {
    static let tables = """
        tables:
          profiles:
            keys: "profile:<id>"
            json:
              $.user.id: user_id:integer
              $.user.name: name
              $.tags[1]: second_tag
              $.score: score:real
              $.active: active:boolean
              $.address: address:json
              $: document
            expires_at: expires_at
          visitors:
            keys: "visitors:<page>"
            hyperloglog: { count: visitors, value: sketch }
          places:
            keys: "places:<city>"
            sorted_set: { member: place, longitude: lon, latitude: lat, score: cell }
          orders:
            keys: "orders:<shop>"
            stream: { id: entry, fields: { kind: text, amount: decimal, at: timestamp } }
            rest: extra
          flags:
            keys: "flag:<name>"
            string: { value: boolean }
          prices:
            keys: "price:<name>"
            string: { value: decimal }
          moments:
            keys: "moment:<name>"
            string: { value: timestamp }
        """

    @Test("documents, sketches, places and entries fill columns", arguments: DatabaseKind.allCases)
    func columns(kind: DatabaseKind) async throws {
        let bench = try await Bench(kind, tables: Self.tables)
        let client = try await bench.redis.connect()
        // What a baseline reads, and what the stream brings.
        try await fill(client, name: "before")
        try await bench.start()
        try await fill(client, name: "after")
        try bench.flush()
        try await bench.expectEqual()
        let result = try bench.sluice.command("verify")
        #expect(result.code == 0, "\(result.output)")

        #expect(
            try bench.query(
                "SELECT user_id, name, second_tag, score FROM profiles WHERE id = 'after'")
                == [["7", "Zoë \"Z\" 🎈", "b", "1.5"]])
        #expect(try bench.number("SELECT count(*) FROM profiles WHERE address IS NULL") == 2)
        #expect(
            try bench.query("SELECT kind, amount FROM orders WHERE shop = 'after' ORDER BY entry")
                == [["sale", "19.90"], [nil, nil]])
        #expect(await bench.counter("setAside") == 0)
    }

    private func fill(_ client: RedisClient, name: String) async throws {
        let document = """
            {"user": {"id": 1, "id": 7, "name": "Zo\\u00eb \\"Z\\" \\ud83c\\udf88"},
             "tags": ["a", "b"], "score": 1.5, "active": true, "address": {"zip": ["x", 1]}}
            """
        try await client.send("SET", "profile:\(name)", document)
        try await client.send("PEXPIREAT", "profile:\(name)", "4000000000000")
        try await client.send("SET", "profile:\(name):2", "{\"address\": null, \"user\": 3}")
        try await client.send("SET", "profile:\(name):3", "{\"score\": 2, \"address\": [1]}")
        try await client.send(
            "SET", "profile:\(name):3", "{\"score\": -2e3, \"address\": \"x\"}", "KEEPTTL")
        for index in 0..<300 {
            try await client.send("PFADD", "visitors:\(name):few", "\(index % 20)")
        }
        for start in stride(from: 0, to: 50_000, by: 1_000) {
            let members = (start..<start + 1_000).map(String.init)
            try await client.send(["PFADD", "visitors:\(name)"] + members)
        }
        try await client.send("PFMERGE", "visitors:\(name):all", "visitors:\(name)")
        let places = [
            ("13.361389", "38.115556", "Palermo"), ("15.087269", "37.502669", "Catania"),
            ("-180", "-85.05", "corner"), ("0", "0", "zero"), ("179.99", "85.05", "other"),
        ]
        for (longitude, latitude, place) in places {
            try await client.send("GEOADD", "places:\(name)", longitude, latitude, place)
        }
        try await client.send("ZINCRBY", "places:\(name)", "1", "zero")
        try await client.send("ZREM", "places:\(name)", "other")
        try await client.send(
            "XADD", "orders:\(name)", "*", "kind", "none", "amount", "19.90", "at", "1700000000",
            "color", "red", "kind", "sale")
        try await client.send("XADD", "orders:\(name)", "*", "color", "blue")
        try await client.send("SET", "flag:\(name)", "yes")
        try await client.send("SET", "price:\(name)", "0010.50")
        try await client.send("SET", "moment:\(name)", "1700000000")
    }

    @Test("values that are no document, sketch, place or number are set aside")
    func misfits() async throws {
        let bench = try await Bench(.sqlite, tables: Self.tables)
        try await bench.start()
        let client = try await bench.redis.connect()
        try await client.send("SET", "profile:a", "{\"user\": ")
        try await client.send("SET", "profile:b", "{\"user\": {\"id\": \"word\"}}")
        try await client.send("SET", "visitors:a", "word")
        try await client.send("ZADD", "places:a", "1.5", "nowhere")
        try await client.send("XADD", "orders:a", "*", "amount", "word")
        try await client.send("XADD", "orders:a", "*", "kind", "good")
        try bench.flush()
        let letters = try bench.query(
            "SELECT table_name, code FROM sluice_dead_letters ORDER BY table_name, key")
        #expect(
            letters.map { $0.map { $0 ?? "" } } == [
                ["orders", "value.type"], ["places", "value.type"], ["profiles", "value.type"],
                ["profiles", "value.type"], ["visitors", "value.type"],
            ])
        #expect(try bench.query("SELECT kind FROM orders") == [["good"]])
        // What fits again is written, and the dead letter goes.
        try await client.send("SET", "profile:b", "{\"user\": {\"id\": 8}}")
        try bench.flush()
        #expect(try bench.query("SELECT id, user_id FROM profiles") == [["b", "8"]])
        #expect(try bench.number("SELECT count(*) FROM sluice_dead_letters") == 4)
        let listed = try bench.sluice.command("dead-letters", "--json")
        #expect(listed.code == 0, "\(listed.output)")
        let listedLetters = try #require(
            JSONSerialization.jsonObject(with: Data(listed.output.utf8)) as? [[String: Any]])
        let named = try bench.query(
            "SELECT CAST(key AS TEXT), code FROM sluice_dead_letters ORDER BY table_name, key")
        #expect(listedLetters.map { $0["key"] as? String } == named.map { $0[0] })
        #expect(listedLetters.map { $0["code"] as? String } == named.map { $0[1] })
    }

    /// What no text holds: bytes that are no UTF-8, NUL, and what reads like digits of bytes.
    private static let strange = #"'\255', 'a\0b', '\\x41', '\195(', '{"a":1}', 'plain', '' "#

    @Test("any bytes stand in lists, rests and entries", arguments: DatabaseKind.allCases)
    func bytesInDocuments(kind: DatabaseKind) async throws {
        let bench = try await Bench(kind)
        let client = try await bench.redis.connect()
        let script = """
            local texts = {\(Self.strange)}
            redis.call('RPUSH', KEYS[1], unpack(texts))
            for index, text in ipairs(texts) do
              redis.call('HSET', KEYS[2], text, texts[#texts + 1 - index])
              redis.call('XADD', KEYS[3], '*', text, text)
            end
            redis.call('HSET', KEYS[2], 'gone', '1')
            """
        func fill(_ name: String) async throws {
            try await client.send(
                "EVAL", script, "3", "l:\(name)", "session:\(name)", "e:\(name)")
        }
        try await fill("before")
        try await bench.start()
        try await fill("after")
        try await client.send("HDEL", "session:after", "gone")
        try await client.send(
            "EVAL", #"redis.call('HSET', KEYS[1], '\255', '\254')"#, "1", "session:before")
        try bench.flush()
        try await bench.expectEqual("\(kind)")
        #expect(await bench.counter("setAside") == 0)
        let items = try bench.query("SELECT items FROM queues ORDER BY name")
        let expected =
            #"["\\xff","\\x610062","\\x5c783431","\\xc328","{\"a\":1}","plain",""]"#
        #expect(items.map { $0[0]?.replacing(", \"", with: ",\"") } == [expected, expected])
        let payload = try bench.query("SELECT payload FROM events ORDER BY topic, event_id").first
        #expect(
            payload?[0]?.replacing(": ", with: ":") == #"{"\\xff":"\\xff"}"#, "\(payload ?? [])")
    }

    @Test("strings are real numbers to the last digit", arguments: DatabaseKind.allCases)
    func reals(kind: DatabaseKind) async throws {
        let bench = try await Bench(
            kind,
            tables: """
                tables:
                  gauges:
                    keys: "g:<name>"
                    string: { value: real }
                    on_expire: delete
                """)
        let client = try await bench.redis.connect()
        try await client.send("SET", "g:before", "0.1")
        try await bench.start()
        for command in [
            "SET g:tenth 0.1", "SET g:small 5e-324", "SET g:large -1.7976931348623157e308",
            "SET g:zero -0", "SET g:added 10.5", "INCRBYFLOAT g:added 0.1", "INCRBYFLOAT g:new 3e5",
            "INCRBYFLOAT g:before 0.2", "APPEND g:tenth 25", "SET g:infinite inf", "SET g:gone 1",
            "GETDEL g:gone", "MSET g:a 1 g:b 2.50", "SET g:word abc", "SET g:hex 0x1p4",
        ] { try await client.send(CommandCase.words(command)) }
        try bench.flush()
        let found = try await bench.unexplained()
        #expect(found.isEmpty)
        let letters = try bench.deadLetters().map { String(decoding: $0.key, as: UTF8.self) }
        #expect(letters == ["g:word"])
        let values = try bench.query(
            "SELECT name, value FROM gauges WHERE name IN ('a', 'added', 'before', 'hex', 'tenth') "
                + "ORDER BY name")
        #expect(
            values.map { $0[1].flatMap(Double.init) } == [1, 10.6, 0.3, 16, 0.125], "\(values)")
    }

    @Test("a mirror of any keys and members", arguments: DatabaseKind.allCases)
    func bytesInKeys(kind: DatabaseKind) async throws {
        let folder = try TemporaryFolder("sluice-mirror")
        let tables = try ServerTests.mirror(folder.url)
            .replacing("<key>", with: "<key:bytes>")
            .replacing("member: member,", with: "member: member:bytes,")
            .replacing("member: member }", with: "member: member:bytes }")
        let bench = try await Bench(kind, tables: tables)
        let client = try await bench.redis.connect()
        let script = """
            local texts = {\(Self.strange)}
            for _, text in ipairs(texts) do
              local key = ARGV[1] .. text
              redis.call('SET', key .. 1, text)
              redis.call('HSET', key .. 2, text, text)
              redis.call('RPUSH', key .. 3, unpack(texts))
              redis.call('SADD', key .. 4, unpack(texts))
              for place, member in ipairs(texts) do redis.call('ZADD', key .. 5, place, member) end
              redis.call('XADD', key .. 6, '*', text, text)
            end
            """
        try await client.send("EVAL", script, "0", "before")
        try await bench.start()
        try await client.send("EVAL", script, "0", "after")
        let changes = #"""
            redis.call('APPEND', 'after\2551', '\254')
            redis.call('RENAME', 'after\2555', 'before\2555')
            redis.call('SREM', 'after\2554', 'a\0b', '\195(')
            redis.call('ZINCRBY', 'before\2555', 7, '\255')
            redis.call('DEL', 'before\2552')
            redis.call('SET', 'before\2553', '\255')
            """#
        try await client.send("EVAL", changes, "0")
        try bench.flush()
        try await bench.expectEqual("\(kind)")
        #expect(await bench.counter("setAside") == 0, "\(bench.sluice.log.suffix(900))")
        #expect(try bench.number("SELECT count(*) FROM sorted_sets") == 13 * 7)
    }
}
