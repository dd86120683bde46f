job "config-attribute-then-block" {
  group "app" {
    task "main" {
      driver = "docker"

      config {
        labels = { a = "b" }
        auth {
          username = "u"
          password = "p"
        }
      }
    }
  }
}
