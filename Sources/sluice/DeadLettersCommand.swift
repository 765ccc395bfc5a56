import ArgumentParser
import Foundation
import SluiceAdmin
import SluiceConfiguration
import SluiceCore
import SluiceEngine

struct DeadLettersCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "dead-letters",
        abstract: "Show the rows that could not be written, try them again, or give them up.",
        subcommands: [
            ListDeadLetters.self, ShowDeadLetters.self, ExportDeadLetters.self,
            RetryDeadLetters.self, DiscardDeadLetters.self,
        ], defaultSubcommand: ListDeadLetters.self)
}

/// Which dead letters a command is for.
struct LetterOptions: ParsableArguments {
    @Option(help: "Only this table.") var table: String?
    @Option(help: "Only this key; bytes that are not text as \\xNN.") var key: String?
    @Option(help: "Only this member or entry of the key.") var member: String?

    func validate() throws {
        if key != nil, table == nil { throw ValidationError("--key needs --table") }
        if member != nil, key == nil { throw ValidationError("--member needs --key") }
    }

    func letters(_ configuration: Configuration) throws -> [StoredLetter] {
        try StoredLetter.all(configuration).filter { letter in
            (table == nil || letter.table == table) && (key == nil || letter.key == key)
                && (member == nil || letter.member == member)
        }
    }

    var request: LetterRequest {
        LetterRequest(
            table: table, key: key.map { StoredLetter.bytes($0) },
            member: member.map { StoredLetter.bytes($0) })
    }
}

struct ListDeadLetters: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "list", abstract: "List them, by table and key.",
        discussion: """
            Reads the database; the instance need not run. A row leaves the list when it is written: \
            mend the key in Redis, or the table. Bytes that are not text are printed as \\xNN.
            """)

    @OptionGroup var options: CommonOptions
    @OptionGroup var choice: LetterOptions
    @Flag(help: "Print JSON.") var json = false

    func run() async throws {
        let letters = try choice.letters(try options.load())
        if json { return print(try StoredLetter.json(letters)) }
        for letter in letters where !letter.isDiscarded { print(letter.summary) }
        let discarded = letters.count(where: \.isDiscarded)
        print(
            "\(letters.count - discarded) dead letters"
                + (discarded == 0 ? "" : ", and \(discarded) that were discarded"))
    }
}

struct ShowDeadLetters: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "show", abstract: "Show them with their values.",
        discussion:
            "Reads the database; the instance need not run. Values may be secrets of your users.")

    @OptionGroup var options: CommonOptions
    @OptionGroup var choice: LetterOptions
    @Flag(help: "Print JSON.") var json = false

    func run() async throws {
        let letters = try choice.letters(try options.load())
        guard !letters.isEmpty else {
            Terminal.complain(
                "there is no such dead letter", hint: "`sluice dead-letters list` names them")
            throw Sysexits.data
        }
        if json { return print(try StoredLetter.json(letters)) }
        for letter in letters { print(letter.details) }
    }
}

struct ExportDeadLetters: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "export", abstract: "Print them with their values, one JSON object a line.",
        discussion:
            "Reads the database; the instance need not run. Values may be secrets of your users.")

    @OptionGroup var options: CommonOptions
    @OptionGroup var choice: LetterOptions

    func run() async throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        for letter in try choice.letters(try options.load()) {
            print(String(decoding: try encoder.encode(letter), as: UTF8.self))
        }
    }
}

struct RetryDeadLetters: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "retry", abstract: "Try to write them again now.",
        discussion: """
            The running instance writes the values that are kept with them, which no later write has \
            replaced. It also does so by itself, at growing intervals (dead_letters.retry_after). \
            Exits with 65 when some are refused still.
            """)

    @OptionGroup var options: CommonOptions
    @OptionGroup var choice: LetterOptions
    @Flag(help: "Print JSON.") var json = false

    func run() async throws {
        let admin = AdminClient(configuration: try options.load())
        let body = try await admin.letters("retry", choice.request)
        let count = try JSONDecoder().decode(RetryCount.self, from: body)
        if json {
            print(String(decoding: body, as: UTF8.self), terminator: "")
        } else {
            print(
                "\(count.written) rows are written, \(count.refused) are refused still, "
                    + "\(count.unread) are read from Redis first")
        }
        if count.refused > 0 { throw Sysexits.data }
    }
}

struct DiscardDeadLetters: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "discard", abstract: "Give them up: forget their values, and try no more.",
        discussion: """
            The rows stay in the database as they are. When their keys change in Redis, they are \
            written again. Needs the running instance.
            """)

    @OptionGroup var options: CommonOptions
    @OptionGroup var choice: LetterOptions
    @Flag(help: "Do so; without this, they are only counted.") var yes = false
    @Flag(help: "Print JSON.") var json = false

    func run() async throws {
        let configuration = try options.load()
        guard yes else {
            let letters = try choice.letters(configuration).filter { !$0.isDiscarded }
            print("\(letters.count) dead letters would be discarded; --yes does it")
            return
        }
        let body = try await AdminClient(configuration: configuration)
            .letters("discard", choice.request)
        if json { return print(String(decoding: body, as: UTF8.self), terminator: "") }
        let counts = try JSONDecoder().decode([String: Int].self, from: body)
        print("\(counts["discarded"] ?? 0) dead letters were discarded")
    }
}

struct ResumeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "resume", abstract: "Have the instance go on that waits for a person.",
        discussion: """
            When most rows of a batch are refused, the table is wrong and not the rows: the instance \
            holds everything, and acknowledges nothing. Mend the table and resume; or have the rows \
            set aside as dead letters.
            """)

    @OptionGroup var options: CommonOptions
    @Flag(help: "Make dead letters of the rows that are refused, however many they are.")
    var setAside = false

    func run() async throws {
        let admin = AdminClient(configuration: try options.load())
        let body = try JSONEncoder().encode(ResumeRequest(setAside: setAside))
        guard try await admin.ask("POST", "/resume", body: body).status == 200 else {
            Terminal.complain(
                "the instance waits for nothing", hint: "`sluice status` says what it does")
            throw Sysexits.temporary
        }
        print("trying; `sluice status` says what came of it")
    }
}

extension AdminClient {
    fileprivate func letters(_ action: String, _ request: LetterRequest) async throws -> Data {
        let body = try JSONEncoder().encode(request)
        let answer = try await ask("POST", "/dead-letters/\(action)", body: body)
        guard answer.status == 200 else {
            Terminal.complain(
                "the instance does not get through to the database",
                hint: "`sluice status` says what it waits for")
            throw Sysexits.temporary
        }
        return answer.body
    }
}
