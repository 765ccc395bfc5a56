import ArgumentParser
import Foundation
import SluiceConfiguration

#if canImport(FoundationNetworking)
    import FoundationNetworking
#endif

/// Asks the running instance through its admin listener.
struct AdminClient {
    let configuration: Configuration

    func ask(
        _ method: String, _ path: String, body: Data? = nil,
    ) async throws -> (status: Int, body: Data) {
        let text = "http://\(configuration.adminHost):\(configuration.adminPort)\(path)"
        guard let url = URL(string: text) else { throw Sysexits.configuration }
        var request = URLRequest(url: url, timeoutInterval: 3_600)
        request.httpMethod = method
        request.httpBody = body
        do {
            let (body, response) = try await URLSession.shared.data(for: request)
            return ((response as? HTTPURLResponse)?.statusCode ?? 0, body)
        } catch {
            Terminal.complain(
                "no instance answers at \(text)",
                hint: "is `sluice run` running with this configuration (admin.listen)?")
            throw Sysexits.unavailable
        }
    }
}
