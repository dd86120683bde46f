job "group-count" {
  group "app" {
    count = 5

    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }
    }
  }
}
