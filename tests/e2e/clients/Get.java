import java.net.URL;

/** Gets $URL with the JDK's own client and prints the body. */
class Get {
    public static void main(String[] args) throws Exception {
        System.out.write(new URL(System.getenv("URL")).openStream().readAllBytes());
        System.out.flush();
    }
}
