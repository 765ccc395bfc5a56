import ArgumentParser
import NIOPosix
import SluiceConfiguration
import SluiceRedis

struct FunctionsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "functions",
        abstract: "Print the functions that mark what an application writes, or load them.",
        discussion: """
            For `capture: dirty-set`, which loads them itself when it may. `FCALL sluice_write 1 KEY \
            COMMAND …` runs a write command and marks its key, in one step.
            """)

    @OptionGroup var options: CommonOptions
    @Flag(help: "Load them into the server.") var load = false
    @Flag(help: "Print the script for servers before 7.0, which know no functions.")
    var script = false

    func run() async throws {
        guard load else {
            return print(script ? MarkFunctions.script : MarkFunctions.library)
        }
        let endpoint = try options.load().endpoint()
        let outcome: (MarkFunctions.Outcome, ServerInfo)
        do throws(RedisError) {
            outcome = try await Self.load(endpoint)
        } catch {
            Terminal.complain(error.message, hint: error.hint)
            throw Sysexits.unavailable
        }
        switch outcome.0 {
        case .present: print("\(outcome.1.name) has the functions")
        case .loaded: print("loaded into \(outcome.1.name)")
        case .script(let digest): print("EVALSHA \(digest)")
        case .refused(let text):
            Terminal.complain(
                "Redis does not take the functions: \(text)",
                hint: "ACL SETUSER … +function|load +fcall_ro; or mark with MULTI, "
                    + "docs/capture.md says how")
            throw Sysexits.permission
        }
    }

    private static func load(
        _ endpoint: RedisEndpoint,
    ) async throws(RedisError) -> (MarkFunctions.Outcome, ServerInfo) {
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let reader = try await KeyReader.connect(to: endpoint, on: loop, isExact: false)
        defer { reader.close() }
        let info = try await reader.info()
        let outcome = try await MarkFunctions.load(to: endpoint, on: loop, isOld: info.isOld)
        return (outcome, info)
    }
}
