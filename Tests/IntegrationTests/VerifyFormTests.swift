import Foundation
import SluiceTesting
import Testing

@Suite("Verify, the forms of values", .serialized)
struct VerifyFormTests {
    @Test("values that databases write otherwise, rows of nobody, and any setting of PostgreSQL")
    func forms() async throws {
        for kind in DatabaseKind.allCases {
            let bench = try await Bench(
                kind,
                tables: """
                    tables:
                      things:
                        keys: "thing:<a>:<b>"
                        hash: { at: timestamp, real: real, flag: boolean, text: text }
                        expires_at: until
                    """)
            if bench.postgres != nil {
                try bench.tamper("ALTER ROLE CURRENT_USER SET standard_conforming_strings = off")
            }
            try await bench.start()
            let client = try await bench.redis.connect()
            let odd = "\\')); CREATE TABLE pwned(); --"
            for (name, at) in [("1", "1700000000.1237"), ("2", "-1.0005"), (odd, "1700000000")] {
                try await client.send(
                    "HSET", "thing:\(name):x", "at", at, "real", "-0", "flag", "off", "text", odd)
                try await client.send("PEXPIREAT", "thing:\(name):x", "999999999999999")
            }
            try bench.flush()
            let quiet = try bench.report("verify", "--json")
            #expect(quiet.code == 0 && quiet.compared == 3, "\(kind) \(quiet.output)")
            // Rows that no key of the pattern makes, the last ones of the table among them.
            try bench.tamper(
                "INSERT INTO things (a, b) VALUES ('1:2', '3'), ('zz', ''), ('z:2', '3')")
            let found = try bench.report("verify", "--json")
            #expect(found.code == 65 && found.differ == 3, "\(kind) \(found.output)")
        }
    }

    @Test("documents and decimals are compared to the last digit", arguments: DatabaseKind.allCases)
    func digits(kind: DatabaseKind) async throws {
        let bench = try await Bench(
            kind,
            tables: """
                tables:
                  documents:
                    keys: "d:<name>"
                    json:
                      $: document
                      $.price: price
                      $.list: list
                      $.big: big:decimal
                      $.name: label
                  carts:
                    keys: "cart:<name>"
                    hash: { total: decimal }
                    rest: items
                """)
        try await bench.start()
        let client = try await bench.redis.connect()
        let big = String(repeating: "1234567890", count: 6) + ".50"
        let document = """
            {"price" : 1.50, "list": [ 1,  2.0e3 ], "big": \(big), "id": 12345678901234567890,
             "name": "x", "name": "\\u00e9\\ud83c\\udf88", "small": -0.0, "tiny": 1E-7}
            """
        for name in ["a", "b"] { try await client.send("SET", "d:\(name)", document) }
        for name in ["a", "b"] {
            try await client.send(
                "HSET", "cart:\(name)", "total", "0" + big, "e\u{301}", "one", "\u{e9}", "other")
        }
        try bench.flush()
        let quiet = try bench.report("verify", "--json")
        #expect(quiet.code == 0 && quiet.compared == 4, "\(kind) \(quiet.output)")
        #expect(
            try bench.query("SELECT price, list FROM documents WHERE name = 'a'")
                == [["1.50", "[ 1,  2.0e3 ]"]])
        let json = kind == .postgres ? "::jsonb" : ""
        func change(_ table: String, _ column: String, _ old: String, _ new: String) throws {
            let isDecimal = ["big", "total"].contains(column)
            let type =
                ["document", "items"].contains(column)
                ? json : kind == .postgres && isDecimal ? "::numeric" : ""
            try bench.tamper(
                "UPDATE \(table) SET \(column) = "
                    + "replace(CAST(\(column) AS TEXT), '\(old)', '\(new)')\(type) WHERE name = 'b'"
            )
        }
        for (table, column, old, new) in [
            (
                "documents", "document", "\"id\": 12345678901234567890",
                "\"id\": 12345678901234567891"
            ),
            ("documents", "document", "67890.50", "67891.50"),
            ("documents", "price", "1.50", "1.5"),
            ("documents", "big", "67890.50", "67890.51"), ("carts", "total", "7890.50", "7890.51"),
            ("documents", "label", "\u{e9}", "e\u{301}"), ("carts", "items", "\u{e9}", "e\u{300}"),
        ] {
            try change(table, column, old, new)
            let found = try bench.report("verify", "--table", table, "--json")
            #expect(
                found.differences.map { $0.prefix(table.count + 2) } == ["\(table) b"],
                "\(column) \(old)")
            #expect(try bench.sluice.command("verify", "--repair").code == 0)
        }
    }

    @Test("keys and members of any bytes, and keys of many fields and elements")
    func shapes() async throws {
        let bench = try await Bench(
            .sqlite,
            tables: """
                tables:
                  blobs:
                    keys: "b:<id:bytes>"
                    string: { value: bytes }
                  members:
                    keys: "s:<id:bytes>:<number:integer>"
                    set: { member: "tag:bytes" }
                  carts:
                    keys: "cart:<id>"
                    hash: { owner: integer }
                    rest: items
                  queues:
                    keys: "l:<name>"
                    list: { items: json }
                """)
        try await bench.start()
        let client = try await bench.redis.connect()
        let odd: [UInt8] = [0xFF, 0x00, 0x27, 0x5C, 0x0A]
        func key(_ text: String) -> [UInt8] { Array(text.utf8) }
        try await client.send(bytes: [key("SET"), key("b:") + odd, odd])
        try await client.send(bytes: [key("SADD"), key("s:") + odd + key(":7"), odd, key("x'")])
        try await client.send(bytes: [key("SADD"), key("s:a:07"), key("no number of this form")])
        for start in stride(from: 0, to: 5_000, by: 1_000) {
            let range = start..<start + 1_000
            try await client.sendAll([
                ["HSET", "cart:1", "owner", "7"] + range.flatMap { ["f\($0)", "\($0)"] },
                ["RPUSH", "l:a"] + range.map { "\($0)" },
            ])
        }
        try bench.flush()
        let quiet = try bench.report("verify", "--json")
        #expect(quiet.code == 0 && quiet.open == 0, "\(quiet.output)")
        #expect(quiet.compared == 6, "a blob, two members and the one set aside, a cart, a queue")
        try bench.tamper(
            """
            UPDATE blobs SET value = X'00'; DELETE FROM members WHERE tag = X'ff00275c0a';
            UPDATE carts SET items = json_remove(items, '$.f4999');
            UPDATE queues SET items = json_remove(items, '$[0]')
            """)
        let traffic = VerifyTraffic(bench.redis)
        let found = try bench.report("verify", "--json")
        await traffic.stop()
        let hex = "\\xff00275c0a"
        for name in ["blobs \(hex): different", "members \(hex) 7 \(hex): missing"] {
            #expect(
                found.differences.contains { $0.hasPrefix(name) }, "\(found.output.prefix(900))")
        }
        for name in ["carts 1: different", "queues a: different"] {
            #expect(found.differences.contains { $0.hasPrefix(name) }, "\(name)")
        }
        #expect(found.differences.count == 4)
    }
}
