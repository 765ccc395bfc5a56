import Foundation
import SluiceConfiguration
import SluicePostgres
import SluiceSQLite

/// A dead letter as the database has it, for a person.
struct StoredLetter: Encodable {
    let table: String
    let key: String
    let member: String
    let operation: String
    let value: Value?
    let code: String
    let message: String
    let attempts: Int
    let firstAt: String
    let lastAt: String
    let retryAt: String?
    let position: String

    /// Nobody tries it any more.
    var isDiscarded: Bool { retryAt == nil }

    /// The columns of a row.
    indirect enum Value: Codable {
        case text(String)
        case object([String: Value])
        case null

        init(from decoder: any Decoder) throws {
            let container = try decoder.singleValueContainer()
            if container.decodeNil() {
                self = .null
            } else if let text = try? container.decode(String.self) {
                self = .text(text)
            } else {
                self = .object(try container.decode([String: Value].self))
            }
        }

        func encode(to encoder: any Encoder) throws {
            var container = encoder.singleValueContainer()
            switch self {
            case .text(let text): try container.encode(text)
            case .object(let members): try container.encode(members)
            case .null: try container.encodeNil()
            }
        }
    }

    var summary: String {
        "\(name)\n    \(code): \(message); \(attempts) times, last \(lastAt)"
    }

    private var name: String { "\(table)  \(key)" + (member.isEmpty ? "" : " \(member)") }

    var details: String {
        let shown = value.flatMap { try? Self.encoder([.sortedKeys]).encode($0) }
        let text = shown.map { String(decoding: $0, as: UTF8.self) }
        let lines = [
            "reason     \(code): \(message)", "operation  \(operation)",
            "value      \(text ?? "is not kept")", "attempts   \(attempts)",
            "first      \(firstAt)",
            "last       \(lastAt)", "next       \(retryAt ?? "discarded")",
            "position   \(position)",
        ]
        return ([name] + lines.map { "    " + $0 }).joined(separator: "\n")
    }

    static func json(_ letters: [StoredLetter]) throws -> String {
        String(
            decoding: try encoder([.sortedKeys, .prettyPrinted]).encode(letters), as: UTF8.self)
    }

    private static func encoder(_ format: JSONEncoder.OutputFormatting) -> JSONEncoder {
        let encoder = JSONEncoder()
        encoder.outputFormatting = format.union(.withoutEscapingSlashes)
        return encoder
    }

    /// All of a source, by table and key.
    static func all(_ configuration: Configuration) throws -> [StoredLetter] {
        let source = configuration.name.replacing("'", with: "''")
        func sql(_ hex: (String) -> String) -> String {
            """
            SELECT table_name, \(hex("key")), \(hex("member")), operation, value, code, message,
                attempts, first_at, last_at, retry_at, replication_id, replication_offset
            FROM sluice_dead_letters WHERE source = '\(source)' ORDER BY table_name, key, member
            """
        }
        do {
            switch configuration.database {
            case .sqlite(let path):
                return try SQLiteQuery(path: path).rows(sql { "hex(\($0))" }).map(StoredLetter.init)
            case .postgres(let url):
                return try PostgresQuery(url: url).rows(sql { "encode(\($0), 'hex')" })
                    .map(StoredLetter.init)
            }
        } catch {
            Terminal.complain(
                "\(error)", hint: "has `sluice run` been started on this database once?")
            throw Sysexits.unavailable
        }
    }

    private init(_ row: [String?]) {
        let texts = row.map { $0 ?? "" }
        table = texts[0]
        key = Self.text(hex: texts[1])
        member = Self.text(hex: texts[2])
        operation = texts[3]
        value = row[4].flatMap { try? JSONDecoder().decode(Value.self, from: Data($0.utf8)) }
        code = texts[5]
        message = texts[6]
        attempts = Int(texts[7]) ?? 0
        firstAt = texts[8]
        lastAt = texts[9]
        retryAt = row[10]
        position = texts[11].isEmpty ? "" : "\(texts[11])/\(texts[12])"
    }

    /// Bytes as text that a terminal may print.
    private static func text(hex: String) -> String {
        let digits = Array(hex)
        let bytes = stride(from: 0, to: digits.count - 1, by: 2).compactMap {
            UInt8(String(digits[$0...$0 + 1]), radix: 16)
        }
        if let text = String(validating: bytes, as: UTF8.self), !text.contains("\\x"),
            text.unicodeScalars.allSatisfy({ $0.value >= 0x20 && $0.value != 0x7F })
        {
            return text
        }
        return bytes.map { byte in
            (0x20..<0x7F).contains(byte) && byte != 0x5C
                ? String(UnicodeScalar(byte)) : "\\x" + String(format: "%02X", byte)
        }.joined()
    }

    /// The bytes that a text stands for.
    static func bytes(_ text: String) -> Data {
        var bytes = Data()
        var rest = Substring(text)
        while let first = rest.first {
            if rest.hasPrefix("\\x"), let byte = UInt8(rest.dropFirst(2).prefix(2), radix: 16) {
                bytes.append(byte)
                rest = rest.dropFirst(4)
            } else {
                bytes += String(first).utf8
                rest = rest.dropFirst()
            }
        }
        return bytes
    }
}
