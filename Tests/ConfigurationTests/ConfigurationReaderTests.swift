import SluiceConfiguration
import SluiceCore
import Testing

@Suite("Configuration")
struct ConfigurationReaderTests {
    static func read(_ text: String) throws -> Configuration {
        try ConfigurationReader(environment: ["PW": "p:w"]).read(text, file: "sluice.yaml")
    }

    static func mistakes(_ text: String) -> [String] {
        do {
            _ = try read(text)
            return []
        } catch let error as ConfigurationError {
            return error.mistakes.map(\.description)
        } catch {
            return ["\(error)"]
        }
    }

    @Test(
        "a table takes its keys from the address's database, unless it names one",
        arguments: [
            ("redis://h:1/4", 4), ("rediss://u:p%40@h/2", 2), ("redis://h", 0), ("redis://h/", 0),
            ("unix:///run/r.sock?db=6", 6), ("unix:///run/1/r.sock", 0),
            ("redis+sentinel://h:1,i:2/main", 0), ("redis+sentinel://u:p@h:1,i/main/3", 3),
        ])
    func databaseNumber(url: String, number: Int) throws {
        let text = """
            redis: { url: '\(url)' }
            tables:
              a: { keys: 'k:<i>', set: { member: m } }
              b: { keys: 'k:<i>', set: { member: m }, database: 9 }
            """
        let configuration = try ConfigurationReader(environment: [:]).read(text, file: "f")
        #expect(configuration.tables.map(\.database) == [number, 9])
    }

    @Test("a secret may come from a file, of which the last line's end is no part")
    func files() throws {
        let text = """
            redis: { url: 'redis://u:${file:/run/a}@h' }
            tables: { a: { keys: 'k:<i>', set: { member: m } } }
            """
        let reader = ConfigurationReader(environment: [:]) { $0 == "/run/a" ? "s3cret\n" : nil }
        #expect(try reader.read(text, file: "f").redis.url == "redis://u:s3cret@h")
        let mistakes = Self.mistakes(text)
        #expect(mistakes.count == 1)
        #expect(mistakes[0].contains("the file /run/a can't be read"))
    }

    @Test("every setting but the tables has a default")
    func defaults() throws {
        let configuration = try Self.read(
            "tables: { v: { keys: 'v:<id>', string: { n: integer } } }")
        #expect(configuration.redis.url == "redis://127.0.0.1:6379/0")
        #expect(configuration.database == .sqlite(path: "sluice.db"))
        #expect(configuration.policy.interval == .seconds(1))
        #expect(configuration.policy.rowsMax == 50_000)
        #expect(configuration.tables[0].primaryKey == [Column(name: "id", type: .text)])
    }

    @Test("a full configuration is read")
    func full() throws {
        let configuration = try Self.read(
            """
            name: shop
            redis: { url: 'rediss://u:${PW}@host:1/3', tls_ca_file: ca.pem, capture: replication }
            database: { url: 'postgres://a@b/c', create_tables: false }
            sync: { interval: 250ms, max_rows: 10 }
            buffer: { max_memory: 64MB }
            admin: { listen: 'localhost:0' }
            tables:
              s:
                keys: 'session:<id:integer>:x'
                hash: { user_id: integer, cart: json }
                rest: extra
                expires_at: expires_at
                settled_at: settled_at
                on_delete: { mark: gone_at }
              z: { keys: 'z:<b>', sorted_set: { member: 'player:integer', score: points } }
              e: { keys: 'e:<t>', stream: { id: event_id, fields: payload } }
            """)
        #expect(configuration.redis.url == "rediss://u:p:w@host:1/3")
        #expect(configuration.policy.interval == .milliseconds(250))
        #expect(configuration.policy.memoryMax == 64 << 20)
        #expect(!configuration.createsTables)
        let session = configuration.tables[0]
        #expect(session.values.map(\.name) == ["user_id", "cart", "extra", "expires_at"])
        #expect(session.removal.onDelete == .mark("gone_at"))
        #expect(configuration.tables[1].primaryKey.map(\.type) == [.text, .integer])
        #expect(configuration.tables[2].removal.onDelete == .keep)
    }

    @Test("all mistakes are reported at once, each with its line and a hint")
    func allAtOnce() {
        let found = Self.mistakes(
            """
            redis:
              urll: redis://x
            sync:
              interval: fast
            tables:
              a:
                keys: "a:<id>"
                string: { n: integr }
              b:
                keys: "b"
                hash: { x: text }
              c:
                string: { n: integer }
            """)
        #expect(found.count == 5, "\(found)")
        #expect(found[0].hasPrefix("line 2: redis.urll: unknown setting"))
        #expect(found[0].contains("did you mean `url`?"))
        #expect(found[1].hasPrefix("line 4: sync.interval"))
        #expect(found[2].hasPrefix("line 8: tables.a.string: `integr` is no type"))
        #expect(found[3].contains("tables.b.keys: expected at least one placeholder"))
        #expect(found[4].contains("tables.c.keys: is missing"))
    }

    @Test(
        "each mistake says what was expected",
        arguments: [
            ("", "no table is mapped"),
            ("tables: {", "no YAML"),
            ("tables: { a: { keys: 'k:<id>' } }", "expected one of"),
            ("tables: { a: { keys: '<a><b>', string: { n: text } } }", "two placeholders touch"),
            (
                "tables: { a: { keys: 'k:<i:real>', string: { n: text } } }",
                "text, integer or bytes"
            ),
            ("tables: { a: { keys: 'k:<n>', string: { n: text } } }", "named twice"),
            (
                "tables: { a: { keys: 'k:<i>', set: { member: m }, expires_at: e } }",
                "one row a key"
            ),
            (
                "tables: { a: { keys: 'k:<i>', string: { n: text }, on_expire: { mark: a }, on_evict: { mark: b } } }",
                "one column, not a and b"
            ),
            (
                "tables: { a: { keys: 'k:<i>', stream: { id: i2, fields: f }, on_delete: delete } }",
                "append-only"
            ),
            ("tables: { a: { keys: 'k:<i>', json: { user.id: x } } }", "no path into a document"),
            ("tables: { a: { keys: 'k:<i>', json: { $.n: 'x:int' } } }", "no type of a column"),
            ("tables: { a: { keys: 'k:<i>', json: {} } }", "expected paths"),
            ("tables: { a: { keys: 'k:<i>', hyperloglog: {} } }", "count: visitors"),
            ("tables: { a: { keys: 'k:<i>', sorted_set: { member: m } } }", "longitude"),
            (
                "tables: { a: { keys: 'k:<i>', stream: { id: e, fields: f }, rest: r } }",
                "belongs to hash tables, and to streams"
            ),
            ("tables: { a: { keys: 'k:<i>', stream: { id: e } } }", "or columns as in"),
            (
                "redis: { capture: psync }\ntables: { a: { keys: 'k:<i>', set: { member: m } } }",
                "expected replication, dirty-set or tracking"
            ),
            (
                "tracking: { audit_interval: 1ms }\ntables: { a: { keys: 'k:<i>', set: { member: m } } }",
                "1s to 168h"
            ),
            (
                "admin: { listen: '0.0.0.0:1' }\ntables: { a: { keys: 'k:<i>', set: { member: m } } }",
                "needs a token"
            ),
            (
                "admin: { token: short }\ntables: { a: { keys: 'k:<i>', set: { member: m } } }",
                "at least 16"
            ),
            (
                "database: { url: mysql://x }\ntables: { a: { keys: 'k:<i>', set: { member: m } } }",
                "planned"
            ),
            (
                "redis: { url: 'redis://${NONE}' }\ntables: { a: { keys: 'k:<i>', set: { member: m } } }",
                "no NONE"
            ),
            (
                "tables:\n  a: { keys: 'k:<i>', set: { member: m } }\n"
                    + "  b: { keys: 'k:x<i>', set: { member: m } }", "belong to a too"
            ),
        ])
    func messages(text: String, expected: String) {
        let found = Self.mistakes(text)
        #expect(found.contains { $0.contains(expected) }, "\(found)")
    }

    @Test("tables of different types may share keys")
    func shared() {
        let found = Self.mistakes(
            "tables:\n  a: { keys: '<k>', set: { member: m } }\n"
                + "  b: { keys: '<k>', string: { v: bytes } }")
        #expect(found.isEmpty)
    }
}
