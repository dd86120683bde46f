variable "app" {
  type = object({
    name  = string
    ports = list(number)
  })
  default = {
    name  = "web"
    ports = ["80", 443]
    more  = "dropped"
  }
}

job "lang-variable-object" {
  meta {
    app   = jsonencode(var.app)
    first = var.app.ports[0]
  }

  group "app" {
    task "main" {
      driver = "raw_exec"

      config {
        command = "/bin/true"
      }
    }
  }
}
