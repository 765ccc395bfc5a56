import ArgumentParser
import Foundation
import SluiceConfiguration
import SluiceCore
import SluicePostgres
import SluiceSQLite

struct DeadLettersCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "dead-letters",
        abstract: "Show the rows that could not be written, with the reasons.",
        subcommands: [ListDeadLetters.self], defaultSubcommand: ListDeadLetters.self)
}

struct ListDeadLetters: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "list", abstract: "List them, by table and key.",
        discussion: """
            Reads the database; the instance need not run. A row leaves the list when it is written: \
            mend the key in Redis, or the table, and write the key again. Bytes that are not text are printed as \\xNN.
            """)

    @OptionGroup var options: CommonOptions
    @Option(help: "Only this table.") var table: String?
    @Flag(help: "Print JSON.") var json = false

    private struct Letter: Encodable {
        let table: String
        let key: String
        let member: String
        let code: String
        let message: String
        let attempts: Int
        let firstAt: String
        let lastAt: String
    }

    func run() async throws {
        let configuration = try options.load()
        let letters = try read(configuration).filter { table == nil || $0.table == table }
        if json {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.sortedKeys, .prettyPrinted, .withoutEscapingSlashes]
            return print(String(decoding: try encoder.encode(letters), as: UTF8.self))
        }
        for letter in letters {
            let member = letter.member.isEmpty ? "" : " \(letter.member)"
            print(
                "\(letter.table)  \(letter.key)\(member)\n    \(letter.code): \(letter.message); "
                    + "\(letter.attempts) times, last \(letter.lastAt)")
        }
        print("\(letters.count) dead letters")
    }

    private func read(_ configuration: Configuration) throws -> [Letter] {
        let source = configuration.name.replacing("'", with: "''")
        func sql(_ hex: (String) -> String) -> String {
            """
            SELECT table_name, \(hex("key")), \(hex("member")), code, message, attempts, first_at,
                last_at
            FROM sluice_dead_letters WHERE source = '\(source)' ORDER BY table_name, key, member
            """
        }
        let rows: [[String?]]
        do {
            switch configuration.database {
            case .sqlite(let path):
                rows = try SQLiteQuery(path: path).rows(sql { "hex(\($0))" })
            case .postgres(let url):
                rows = try PostgresQuery(url: url).rows(sql { "encode(\($0), 'hex')" })
            }
        } catch {
            Terminal.complain(
                "\(error)", hint: "has `sluice run` been started on this database once?")
            throw Sysexits.unavailable
        }
        return rows.map { row in
            let texts = row.map { $0 ?? "" }
            return Letter(
                table: texts[0], key: Self.text(hex: texts[1]), member: Self.text(hex: texts[2]),
                code: texts[3], message: texts[4], attempts: Int(texts[5]) ?? 0,
                firstAt: texts[6], lastAt: texts[7])
        }
    }

    /// Bytes as text that a terminal may print.
    private static func text(hex: String) -> String {
        let digits = Array(hex)
        let bytes = stride(from: 0, to: digits.count - 1, by: 2).compactMap {
            UInt8(String(digits[$0...$0 + 1]), radix: 16)
        }
        if let text = String(validating: bytes, as: UTF8.self),
            text.unicodeScalars.allSatisfy({ $0.value >= 0x20 && $0.value != 0x7F })
        {
            return text
        }
        return bytes.map { byte in
            (0x20..<0x7F).contains(byte)
                ? String(UnicodeScalar(byte)) : "\\x" + String(format: "%02X", byte)
        }.joined()
    }
}
