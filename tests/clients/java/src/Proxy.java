import java.io.IOException;
import java.io.InputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import java.util.UUID;

/** What the runner tells of the keyferry under test. */
record Proxy(String host, int port, String control, List<Address> shards) {
    private static final int CONTROL_SECONDS_MAX = 30;

    record Address(String host, int port) {}

    static Proxy ofEnvironment() {
        List<Address> shards = new ArrayList<>();
        for (String shard : setting("KEYFERRY_SHARDS").split(",")) {
            int colon = shard.lastIndexOf(':');
            shards.add(new Address(shard.substring(0, colon), Integer.parseInt(shard.substring(colon + 1))));
        }
        int port = Integer.parseInt(setting("KEYFERRY_PORT"));
        return new Proxy(setting("KEYFERRY_HOST"), port, setting("KEYFERRY_CONTROL"), shards);
    }

    private static String setting(String name) {
        String value = System.getenv(name);
        if (value == null || value.isEmpty()) {
            System.err.println(name + " is not set: start this by tests/clients/run");
            System.exit(2);
        }
        return value;
    }

    /** Ends keyferry and starts it again; returns when it listens. */
    void restart() throws IOException, InterruptedException {
        HttpRequest request = HttpRequest.newBuilder(URI.create(control + "/restart"))
                .timeout(Duration.ofSeconds(CONTROL_SECONDS_MAX))
                .POST(HttpRequest.BodyPublishers.noBody())
                .build();
        HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        HttpResponse<String> answer = client.send(request, HttpResponse.BodyHandlers.ofString());
        Expect.same("the runner's answer to /restart", answer.statusCode(), 200);
    }

    /** Different in each run, so that nothing is found of an earlier one. */
    static String word() {
        return UUID.randomUUID().toString().substring(0, 8);
    }

    /** The version in the jar that is loaded, which is the one of pom.xml. */
    static String versionOf(Class<?> type, String artifact) {
        try (InputStream told = type.getResourceAsStream("/META-INF/maven/" + artifact + "/pom.properties")) {
            Properties properties = new Properties();
            properties.load(told);
            return properties.getProperty("version");
        } catch (IOException | NullPointerException wrong) {
            return "unknown";
        }
    }
}
