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
}
