import ArgumentParser

/// The program.
@main
struct SluiceCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sluice",
        abstract: "Write-behind for Redis and Valkey: plain writes settle in SQLite or PostgreSQL.",
        discussion: """
            Your application writes to Redis as always. Sluice follows Redis as a replica does, \
            folds the writes to each row into one, and commits the rows in transactions.

            Start with:
              sluice demo                       see it work, on a private Redis and a SQLite file
              sluice check --config sluice.yaml find out what would go wrong
              sluice run --config sluice.yaml   do it

            A first sluice.yaml:
              redis:
                url: redis://127.0.0.1:6379/0
              database:
                url: sqlite:sluice.db
              tables:
                page_views:
                  keys: "views:<page>"
                  string: { views: integer }
            """,
        version: Version.text,
        subcommands: [
            RunCommand.self, DemoCommand.self, CheckCommand.self, SchemaCommand.self,
            StatusCommand.self, FlushCommand.self, VerifyCommand.self, ReconcileCommand.self,
            DeadLettersCommand.self, ResumeCommand.self, FunctionsCommand.self,
            VersionCommand.self,
        ],
    )
}

/// The version of the program.
enum Version {
    static let number = "0.1.0"
    static let text = "sluice \(number)"
}

struct VersionCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "version", abstract: "Print the version.")

    func run() async throws {
        print(Version.text)
    }
}
